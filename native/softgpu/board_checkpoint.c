/* SPDX-License-Identifier: Apache-2.0 */
#include "board_checkpoint.h"
#include "board.h"

void gv_board_take_away(struct gv_board *board, int record, struct gv_board_saved *saved)
{
    gv_board_lock(board);
    for (uint32_t d = 0; d < GV_BOARD_DEVICES; d++) {
        struct gv_board_account *account = &board->processes[record].accounts[d];
        saved->bytes[d] = account->private_bytes;
        saved->contexts[d] = account->contexts;
        account->private_bytes = 0;
        account->contexts = 0;
        __atomic_fetch_sub(&board->devices[d].used_bytes, saved->bytes[d], __ATOMIC_RELAXED);
    }
    gv_board_unlock(board);
}

bool gv_board_give_back(struct gv_board *board, int record, const struct gv_board_saved *saved, const uint8_t *place)
{
    gv_board_reap(board, 0);
    gv_board_lock(board);
    bool fits = true;
    for (uint32_t d = 0; d < board->device_count; d++)
        fits = fits && (saved->bytes[d] == 0 || gv_board_fits(board, place[d], saved->bytes[d]));
    for (uint32_t d = 0; d < board->device_count && fits; d++) {
        struct gv_board_account *account = &board->processes[record].accounts[place[d]];
        account->private_bytes += saved->bytes[d];
        account->contexts += saved->contexts[d];
        __atomic_fetch_add(&board->devices[place[d]].used_bytes, saved->bytes[d], __ATOMIC_RELAXED);
    }
    gv_board_unlock(board);
    return fits;
}
