/* Books that are lent to C: what Python and books.c share; layouts.py has the twins. */
#ifndef INGESTOR_BOOKS_H
#define INGESTOR_BOOKS_H

#include <stddef.h>
#include <stdint.h>

/* One event of a venue: rows.UPDATE. */
typedef struct {
    int64_t ts_event, ts_recv;
    uint64_t first, last, previous;
    uint32_t instrument, bids, asks, checksum, frame;
    uint16_t flags, spare;
} Update;

typedef struct {
    int64_t *keys, *sizes;                       /* in order of keys, the best one last */
    uint32_t used, room;
} Side;

/* How an update says that it is the next one. */
enum { RULE_RANGE, RULE_PREVIOUS, RULE_INCREMENT, RULE_NONE };

typedef struct {
    Side sides[2];                               /* bids, asks */
    uint64_t last;                               /* the number of the newest update */
    uint32_t limit;                              /* levels that a side should hold */
    uint8_t rule;
    uint8_t is_lent;                             /* 0: its updates are left to Python */
    uint8_t spare[2];
} Book;

/* What became of an update. */
enum {
    UPDATE_LEFT,     /* nothing: it is Python's */
    UPDATE_DONE,     /* it is in the book */
    UPDATE_APPLIED   /* its levels are in the book, which is crossed or too long now: Python decides */
};

#endif
