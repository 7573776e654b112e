/* SPDX-License-Identifier: Apache-2.0
 *
 * The two shared pages, at addresses that stay: a private closed pair at first, then those of one daemon after the other.
 */
#ifndef GPUVIRT_SHIM_PAGES_H
#define GPUVIRT_SHIM_PAGES_H

/* Maps the first pair into gv_session. 0, or -1. */
int gv_pages_prepare(void);

/* Puts the daemon's pages where ours are: whoever looks through the old pointers sees the new pages. 0, or an errno. */
int gv_pages_take(int lease, int client);

/* A closed lease page until the next is taken. */
void gv_pages_close(void);

#endif
