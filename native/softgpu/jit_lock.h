/* SPDX-License-Identifier: Apache-2.0
 *
 * Who compiles a module when several processes need it at once: the one that has its lock file; the others wait for it.
 */
#ifndef GPUVIRT_SOFTGPU_JIT_LOCK_H
#define GPUVIRT_SOFTGPU_JIT_LOCK_H

/* Takes the lock file at `path` and returns its descriptor. -1: go on without, as two who compile the same do no harm: the
 * file system has no locks, or the holder does not get on (it is stopped, say). One thread of the process at a time. */
int gv_jit_lock(const char *path);

void gv_jit_unlock(const char *path, int fd);

/* Removes what processes that were killed left in the cache. */
void gv_jit_clean(const char *cache);

#endif
