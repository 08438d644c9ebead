/* The way back: the records of a Kafka batch -> rows.
 *
 * A record is taken if its value begins as its key's records are known to begin, and goes on exactly
 * as one of our templates does. Python reads every other one, and learns how that began.
 */
#include "reading.h"

#include <string.h>

/* Read a number of Kafka's records: seven bits a byte, zigzag; NULL: no such number up to `end`. */
static inline const uint8_t *read_varint(const uint8_t *at, const uint8_t *end, int64_t *out) {
    uint64_t value = 0;
    for (unsigned shift = 0; at < end && shift < 64; shift += 7) {
        uint8_t byte = *at++;
        value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) {
            *out = (int64_t)(value >> 1 ^ (~(value & 1) + 1));
            return at;
        }
    }
    return NULL;
}

/* Read bytes that stand behind their length, -1 for none; NULL: not that many up to `end`. */
static inline const uint8_t *read_bytes(const uint8_t *at, const uint8_t *end, const uint8_t **bytes,
                                        int64_t *length) {
    if ((at = read_varint(at, end, length)) == NULL || *length < -1 || *length > end - at) return NULL;
    *bytes = at;
    return *length > 0 ? at + *length : at;
}

/* Match one value; 1: taken, 0: Python's, -1: no room. prefix: the one that it begins with. */
static inline int take_value(const Reading *reading, const char *key, size_t key_bytes, const char *value,
                             size_t value_bytes, uint8_t row[REGISTER_BYTES], const Prefix **found) {
    const Symbol *symbol = native_find(reading->shapes, key, key_bytes);
    if (symbol == NULL) return 0;
    for (uint32_t index = symbol->number; index; index = reading->prefixes[index].next) {
        const Prefix *prefix = *found = &reading->prefixes[index];
        if (value_bytes < prefix->length || memcmp(value, reading->texts + prefix->text_at, prefix->length) != 0)
            continue;
        const Shape *shape = &reading->shapes->shapes[prefix->shape];
        Symbol known = {.number = prefix->number};
        memcpy(known.exponents, prefix->exponents, sizeof known.exponents);
        memcpy(row, shape->row, ROW_BYTES);
        memcpy(row + ROW_INSTRUMENT, &known.number, 4);
        int taken = native_match_shape(reading->shapes, shape, reading->output, value + prefix->length,
                                       value + value_bytes, row, &known, 0);
        if (taken) return taken;
    }
    return 0;
}

/* Return whether a record that was taken goes on with the run; the first one begins it. */
static inline int follows(Reading *reading, const Prefix *prefix, uint64_t row_class, uint64_t before,
                          const uint8_t *row) {
    uint64_t first;
    memcpy(&first, row + RECORD_FIRST, 8);
    if (reading->records == 0) {
        reading->row_class = row_class;
        reading->session = prefix->session;
        reading->first_sequence = first - before;
    }
    return reading->row_class == row_class && reading->session == prefix->session &&
           reading->first_sequence + before == first;
}

/* Read a run of records: of one class and session, their rows numbered without a hole.
 *
 * data: the records of a batch, decompressed. The rows begin where the arrays do. */
int native_read(Reading *reading, const uint8_t *data, uint64_t size) {
    const uint8_t *end = data + size;
    uint8_t row[REGISTER_BYTES];
    Output *output = reading->output;
    for (int index = 0; index < ROW_CLASSES; index++) output->rows[index].used = 0;
    reading->records = 0;
    for (; reading->left; reading->left--) {
        const uint8_t *at = data + reading->at, *next, *key, *value;
        int64_t body, delta, ignored, key_bytes, value_bytes;
        if ((at = read_varint(at, end, &body)) == NULL || body < 1 || body > end - at) return READ_BROKEN;
        next = at + body;
        at++; /* attributes, which mean nothing yet */
        if ((at = read_varint(at, next, &ignored)) == NULL || (at = read_varint(at, next, &delta)) == NULL ||
            (at = read_bytes(at, next, &key, &key_bytes)) == NULL ||
            (at = read_bytes(at, next, &value, &value_bytes)) == NULL)
            return READ_BROKEN;
        if (delta >= reading->least_delta && delta <= reading->most_delta) {
            const Prefix *prefix = NULL;
            int taken = 0;
            if (reading->records == reading->records_max) return READ_CUT;
            uint64_t before[ROW_CLASSES];
            for (int index = 0; index < ROW_CLASSES; index++) before[index] = output->rows[index].used;
            if (key_bytes > 0 && value_bytes > 0)
                taken = take_value(reading, (const char *)key, (size_t)key_bytes, (const char *)value,
                                   (size_t)value_bytes, row, &prefix);
            if (taken < 0) return READ_CUT;
            if (taken == 0) {
                reading->value_at = (uint64_t)(value - data);
                reading->value_bytes = value_bytes > 0 ? (uint64_t)value_bytes : 0;
                reading->delta = delta;
                reading->at = (uint64_t)(next - data);
                reading->left--;
                return value_bytes < 0 ? READ_EMPTY : READ_OTHER;
            }
            uint64_t row_class = reading->shapes->shapes[prefix->shape].row_class;
            RowArray *rows = &output->rows[row_class];
            if (!follows(reading, prefix, row_class, before[row_class], row)) {
                rows->used = before[row_class];
                return READ_CUT;
            }
            reading->ends[reading->records] = (int64_t)rows->used;
            reading->deltas[reading->records++] = delta;
        }
        reading->at = (uint64_t)(next - data);
    }
    return READ_ALL;
}
