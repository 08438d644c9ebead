/* Rows -> the records of a Kafka batch: what Python and records.c share; layouts.py has the twins. */
#ifndef INGESTOR_RECORDS_H
#define INGESTOR_RECORDS_H

#include <stddef.h>
#include <stdint.h>

enum { FIELDS_MAX = 16, VALUE_MAX = 48 };       /* fields of a template, bytes of one value's text */

/* What a field's value is made of. Integers and decimals must not be negative. */
enum {
    FIELD_SEQUENCE,  /* the number of the record's first row */
    FIELD_ROWS,      /* how many rows the record has */
    FIELD_INTEGER,   /* 8 bytes at `at` */
    FIELD_FLAGS,     /* 2 bytes at `at` */
    FIELD_SIDE,      /* a byte at `at`: none, buy or sell */
    FIELD_PRICE,     /* 8 bytes at `at`, with the instrument's decimals */
    FIELD_SIZE,
    FIELD_TRADE_ID,  /* 16 bytes at `at`, high and low: decimal digits, or a UUID; often as `FIELD_INTEGER` before */
    FIELD_BIDS,      /* ["price","size"] of each row of the record that is no ask; `at`: of the price */
    FIELD_ASKS,
    FIELD_END        /* none: the text closes the value, and what follows are the record's headers */
};

typedef struct {
    uint32_t text_at, length;                   /* what stands before the value, into Writer.texts */
    uint16_t at;
    uint8_t kind, spare[5];
} Field;

/* What all records of an instrument have in common; unknown where `prefix_length` is 0. */
typedef struct {
    uint32_t key_at, key_length, prefix_at, prefix_length; /* into Writer.names */
    uint8_t exponents[2];                       /* of price and size, 0 to 18 */
    uint8_t spare[6];
} Known;

/* A template, its instruments, and where the records go. */
typedef struct {
    const Field *fields;
    const char *texts;
    const Known *known;
    const char *names;
    int64_t *places;                            /* scratch: 2 for each instrument, key and prefix */
    uint8_t *out;
    uint8_t *levels;                            /* scratch: the texts of a record's levels */
    uint64_t fields_count, known_count, room, levels_room;
    uint64_t row_bytes;                         /* 64, or 48 of levels */
    uint64_t row_kind;                          /* of all rows that a template can write */
    uint64_t closing;                           /* bytes of the last field's text that end the value */
    uint64_t records, plain_bytes, out_bytes;   /* results */
    uint64_t unknown;                           /* result: the number of an instrument */
} Writer;

enum { DONE, ODD_ROW, NO_ROOM, UNKNOWN };       /* what native_records returns */

#endif
