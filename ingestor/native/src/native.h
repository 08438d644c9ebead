/* The memory that Python and C share, and the functions that Python calls.
 *
 * numpy owns every array. Nothing here allocates, and nothing is kept after a call returns. Each
 * structure has its twin in layouts.py; `native_sizes` lets the loader compare them. All integers
 * are little-endian; the loader refuses other machines.
 */
#ifndef INGESTOR_NATIVE_H
#define INGESTOR_NATIVE_H

#include <stddef.h>
#include <stdint.h>

enum { ROW_BYTES = 64, ROW_CLASSES = 3, CHOICES_MAX = 4 };
enum { TRADES, QUOTES, UPDATES };                /* indices of Rows.rows */

/* What one step of a shape does; layouts.py has the same list. */
enum {
    OP_LITERAL,  /* exactly this text */
    OP_SYMBOL,   /* a symbol of the market, up to the quote */
    OP_INTEGER,  /* digits between `least` and `most`; `width` bytes of the field, and of a second */
    OP_MS,       /* milliseconds since the epoch between `least` and `most`, stored as ns */
    OP_DECIMAL,  /* decimal text, stored in units of the instrument's exponent (`width`: 0 price, 1 size);
                    at2 1: without zeros behind that many decimals */
    OP_CHOICE,   /* one of up to CHOICES_MAX texts, stored as a byte */
    OP_TEXT,     /* printable ASCII without quote and backslash, not stored */
    OP_DIGITS,   /* digits, not stored */
    OP_ISO,      /* RFC 3339 in UTC between `least` and `most` ns, stored as ns */
    OP_UUID,     /* a lower-case UUID, stored in two fields of 64 bits */
    OP_EACH,     /* the beginning of an array; `width` 1: it has an element at least */
    OP_NEXT,     /* the end of an element: another one at `jump`, or the end of the array */
    OP_LEVEL,    /* ends a level of `width` 1 bids, 2 asks, 0: the side that was read */
    OP_ROW,      /* ends a row */
    OP_WORD,     /* ASCII letters, digits, "_" and "-", one at least, not stored */
    OP_NUMBER,   /* digits, perhaps with a sign and decimals, not stored */
    OP_SAME,     /* decimal text of the same number as the field `at` has; `width` as OP_DECIMAL */
    OP_EXACT,    /* decimal text with exactly as many decimals as the exponent; `width` as OP_DECIMAL */
    OP_ID,       /* digits or a lower-case UUID up to a quote, stored in two fields of 64 bits */
    OP_LEVEL_ROW, /* appends a row of a level of `width` 1 bids, 2 asks */
    OP_LEVELS_END, /* there are as many of these rows as was said, one at least; flags the last one */
    OP_COUNT,    /* the number that the connection's next frame has; `width` 8: stored as OP_INTEGER does */
    OP_END       /* the frame must end here */
};

/* Where a level that is being read stands, behind the 64 bytes of the row. */
enum { LEVEL_PRICE = 64, LEVEL_SIZE = 72, LEVEL_SIDE = 80 };
/* What a record says of itself (reading.h): the number of its first row, and how many it has. */
enum { RECORD_FIRST = 88, RECORD_ROWS = 96, REGISTER_BYTES = 104 };
/* A row of a level has no more than a head and the level; where flags and side are in the head. */
enum { LEVEL_ROW_BYTES = 48, ROW_HEAD_BYTES = 32, ROW_INSTRUMENT = 24, ROW_FLAGS = 28, ROW_SIDE = 30 };
enum { FLAG_LAST = 1 };

typedef struct {
    uint32_t text_at;                            /* into Shapes.texts */
    uint16_t length;
    uint8_t value, spare;
} Choice;

typedef struct {
    uint8_t kind, width, choices, spare;
    uint16_t at, at2;                            /* bytes from the row's beginning; at2 0: none */
    uint32_t jump;                               /* an operation of the same shape */
    uint32_t text_at, length;                    /* of a literal, into Shapes.texts */
    uint32_t spare2;
    uint64_t least, most;                        /* both included */
    Choice choice[CHOICES_MAX];
} Operation;

typedef struct {
    uint32_t first;                              /* its first operation */
    uint8_t row_class;                           /* TRADES, QUOTES or UPDATES */
    uint8_t newest_first;                        /* 1: the rows of a frame are turned around */
    uint8_t spare[2];
    uint8_t row[ROW_BYTES];                      /* what all rows have in common */
} Shape;

/* A slot of a hash table with open addressing; empty where `length` is 0. */
typedef struct {
    uint64_t hash;
    uint32_t text_at, length;                    /* into Shapes.names */
    uint32_t number;                             /* of the instrument */
    uint8_t exponents[2];                        /* of price and size, 0 to 18 */
    uint8_t spare[2];
} Symbol;

/* What one market's frames look like, and its symbols. */
typedef struct {
    const Operation *operations;
    const Shape *shapes;
    const char *texts;
    const Symbol *symbols;
    const char *names;
    uint64_t symbols_mask;                       /* slots - 1, a power of two less one */
    uint64_t *taken;                             /* frames taken, by shape */
    uint32_t shape_count, last;                  /* last: the shape that matched last */
    uint64_t is_counted, next;                   /* 1: each frame has a number; the one that is expected */
} Shapes;

/* An array of rows, and the frame that each came with. */
typedef struct {
    uint8_t *rows;
    int64_t *frames;
    uint64_t used, room;                         /* rows */
} RowArray;

/* Where rows go: one for all markets of a loop. levels: pairs of price and size. */
typedef struct {
    RowArray rows[ROW_CLASSES];
    int64_t *levels, *asks;                      /* asks: scratch, of the same room */
    uint64_t levels_used, levels_room;           /* pairs */
} Output;

/* What does not change between calls that read a market's frames, and what the last one found.
 * others: (offset, length, frame) of each frame that no shape takes. Where frames are counted, the first
 * one ends the call: only its decoder knows which number comes next. */
typedef struct {
    Shapes *shapes;
    Output *output;
    int64_t *others;
    uint64_t others_max, others_count;
    uint64_t frames, bytes;                      /* taken by the call, and their payload */
    uint64_t is_full;                            /* 1: an array is full, `take` again with room */
    const uint64_t *connections;                 /* of each payload, where frames are counted */
    uint64_t *next;                              /* the number that is expected, by connection */
} Take;

/* Match one payload; 1: taken, 0: none of the shapes, -1: no room. ts_recv: ns since the epoch. */
int native_match(Shapes *shapes, Output *output, const char *text, size_t size, int64_t ts_recv,
                 int64_t frame);

/* Match one payload with one shape, of an instrument that is known already (NULL: a step finds it). row: what
 * the rows begin as; what is read of them is left there. */
int native_match_shape(const Shapes *shapes, const Shape *shape, Output *output, const char *at,
                       const char *end, uint8_t row[REGISTER_BYTES], const Symbol *symbol, int64_t frame);

/* Return the slot of a symbol, NULL where there is none of this name. */
const Symbol *native_find(const Shapes *shapes, const char *text, size_t size);

#endif
