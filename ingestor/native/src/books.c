/* Books: the plain updates of live books -> their levels.
 *
 * A side is two arrays in order of keys, which are prices, or minus the prices of asks, so that the
 * best level is the last one. An update that isn't plain is left as it is, and so are all later ones
 * of its book: Python decides on them.
 */
#include "books.h"

#include <string.h>

enum { SNAPSHOT = 2 };

/* Return where a key stands or belongs. Most changes are near the best level: look from there, in
 * growing steps, then by halves. */
static inline uint32_t place_of(const Side *side, int64_t key) {
    uint32_t high = side->used, step = 4, low = high > step ? high - step : 0;
    while (low > 0 && side->keys[low] >= key) {
        high = low;
        step *= 4;
        low = high > step ? high - step : 0;
    }
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (side->keys[middle] < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Set one level; a size of 0 removes it. There is room. */
static inline void set_level(Side *side, int64_t key, int64_t size) {
    uint32_t at = place_of(side, key);
    size_t behind = side->used - at;
    if (at < side->used && side->keys[at] == key) {
        if (size) {
            side->sizes[at] = size;
            return;
        }
        memmove(side->keys + at, side->keys + at + 1, 8 * (behind - 1));
        memmove(side->sizes + at, side->sizes + at + 1, 8 * (behind - 1));
        side->used--;
    } else if (size) {
        memmove(side->keys + at + 1, side->keys + at, 8 * behind);
        memmove(side->sizes + at + 1, side->sizes + at, 8 * behind);
        side->keys[at] = key;
        side->sizes[at] = size;
        side->used++;
    }
}

static inline int continues(const Book *book, const Update *update) {
    switch (book->rule) {
    case RULE_RANGE: return update->first == book->last + 1;
    case RULE_PREVIOUS: return update->previous == book->last;
    case RULE_INCREMENT: return update->last == book->last + 1;
    default: return 1;
    }
}

/* Whether an update is one to take: the book's next delta, without negative sizes, and with room. */
static inline int is_plain(const Book *book, const Update *update, const int64_t *sizes) {
    uint64_t levels = (uint64_t)update->bids + update->asks;
    int64_t signs = 0;
    if (update->flags & SNAPSHOT || !continues(book, update) ||
        book->sides[0].used + (uint64_t)update->bids > book->sides[0].room ||
        book->sides[1].used + (uint64_t)update->asks > book->sides[1].room)
        return 0;
    for (uint64_t index = 0; index < levels; index++) signs |= sizes[index];
    return signs >= 0;
}

/* Take the plain updates from `first` to before `end`.
 *
 * books: by instrument. prices, sizes: of all levels, bids before asks; `level`: where those of the
 * first update begin. done: what became of each update. */
void native_books(Book *books, const Update *updates, const int64_t *prices, const int64_t *sizes,
                  uint8_t *done, int64_t first, int64_t end, int64_t level) {
    for (int64_t index = first; index < end; index++) {
        const Update *update = &updates[index];
        Book *book = &books[update->instrument];
        const int64_t asks_at = level + update->bids, next = asks_at + update->asks;
        done[index] = UPDATE_LEFT;
        if (book->is_lent && !is_plain(book, update, sizes + level)) book->is_lent = 0;
        if (book->is_lent) {
            Side *bids = &book->sides[0], *asks = &book->sides[1];
            for (; level < asks_at; level++) set_level(bids, prices[level], sizes[level]);
            for (; level < next; level++) set_level(asks, -prices[level], sizes[level]);
            if ((bids->used && asks->used && bids->keys[bids->used - 1] + asks->keys[asks->used - 1] >= 0) ||
                bids->used > book->limit || asks->used > book->limit) {
                done[index] = UPDATE_APPLIED;
                book->is_lent = 0;
            } else {
                done[index] = UPDATE_DONE;
                book->last = update->last;
            }
        }
        level = next;
    }
}
