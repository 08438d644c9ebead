/* What a flush looks at row by row: what Python and flush.c share; layouts.py has the twins. */
#ifndef INGESTOR_FLUSH_H
#define INGESTOR_FLUSH_H

#include <stddef.h>
#include <stdint.h>

/* How the rows of every class begin: rows.HEADER. */
typedef struct {
    int64_t ts_event, ts_recv;                   /* ns since the epoch */
    uint64_t sequence;
    uint32_t instrument;
    uint16_t flags;
    uint8_t side, kind;
} Head;

/* How the trade numbers of an instrument are followed. */
enum {
    FOLLOW_NONE,    /* not at all */
    FOLLOW_HIGHER,  /* each is higher than the last */
    FOLLOW_NEXT,    /* each is one more than the last */
    FOLLOW_SPANS,   /* each is the end of a range that follows the last; its field trade_id_high, cleared
                     * then, has how many numbers stand below it */
    FOLLOW_PYTHON   /* Python looks */
};

/* Durations by bins, a row of `bins` counts for each feed. */
typedef struct {
    int64_t *counts;
    double *sums;                                /* ns, by feed */
    const int64_t *edges;                        /* bins - 1 of them, rising; ns */
    uint64_t bins;
} Durations;

/* What rows are counted into. By instrument: feed_of, seen_*. By feed: all others. */
typedef struct {
    const int64_t *feed_of;
    uint64_t instruments;                        /* how many there are */
    int64_t *seen_rows, *seen_recv, *seen_event; /* NULL: nobody asks */
    int64_t *last_recv;                          /* NULL: nobody asks */
    int64_t *least_raw;                          /* least ts_recv - ts_event; NULL: nobody asks */
    int64_t *rows;                               /* how many there were; NULL: nobody asks */
    Durations lag, waited;                       /* from ts_recv to now; in the sink, counts NULL: none */
    uint32_t row_bytes;
    uint16_t wanted;                             /* flags that a tick has */
    uint16_t no_raw;                             /* flags of rows whose ts_event says nothing */
    uint8_t kind;                                /* that a tick has; 0: any */
    uint8_t are_updates;                         /* 1: the rows are updates (books.h), ticks have a level */
    uint8_t spare[6];
} RowCounts;

#endif
