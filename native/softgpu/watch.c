/* SPDX-License-Identifier: Apache-2.0 */
#include "watch.h"

_Atomic(gv_watcher_function) gv_watcher;

void gvSoftWatch(gv_watcher_function may) { atomic_store(&gv_watcher, may); }
