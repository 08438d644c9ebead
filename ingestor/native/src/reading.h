/* The records of a Kafka batch -> rows: what Python and reading.c share; layouts.py has the twins. */
#ifndef INGESTOR_READING_H
#define INGESTOR_READING_H

#include "native.h"

/* How the values of an instrument's records begin, up to the number of their first row. */
typedef struct {
    uint32_t text_at, length;                    /* into Reading.texts */
    uint32_t next;                               /* another one of the same key, 0: none */
    uint32_t number;                             /* of the instrument, in the reader's table */
    uint32_t session;                            /* the number of the publisher's session */
    uint8_t exponents[2];                        /* of price and size, 0 to 18 */
    uint8_t shape;                               /* of what follows, an index */
    uint8_t spare;
} Prefix;

/* What does not change between calls, and what the last one found.
 * shapes: what follows a prefix; its symbols are the records' keys, with the number of a prefix. */
typedef struct {
    const Shapes *shapes;
    Output *output;
    const Prefix *prefixes;                      /* from 1 on */
    const char *texts;
    int64_t *ends;                               /* rows up to each record's end, since the call began */
    int64_t *deltas;                             /* each record's offset from the batch's */
    uint64_t records_max;
    uint64_t at, left;                           /* the next record: its place, how many are left */
    int64_t least_delta, most_delta;             /* records between them are wanted, both included */
    uint64_t records, row_class, session;        /* results: a run of records that follow each other */
    uint64_t first_sequence;                     /* result: the number of the run's first row */
    uint64_t value_at, value_bytes;              /* result: of a record that no shape takes */
    int64_t delta;                               /* result: its offset from the batch's */
} Reading;

/* What native_read returns: why the run is over. */
enum {
    READ_ALL,     /* nothing is left */
    READ_OTHER,   /* the record behind it is for Python to read; `at` is behind that */
    READ_CUT,     /* the next record belongs to another run, or there is no room: call again */
    READ_EMPTY,   /* the record behind it has no value; `at` is behind that */
    READ_BROKEN   /* what follows is no record */
};

#endif
