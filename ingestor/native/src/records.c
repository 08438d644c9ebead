/* Stage 3: rows -> the records of a Kafka batch, either as they are or as an LZ4 block.
 *
 * The values are byte for byte those of codec/json_encoder.py. The LZ4 block is made without looking
 * for matches: what a template repeats is emitted as a match with its last occurrence, and only the
 * digits that changed are literals. Rows that a template can't write (marks, negative numbers) make
 * Python write the whole part.
 */
#include <string.h>

#include "lz4.h"
#include "numbers.h"
#include "records.h"

enum { TS_RECV = 8, INSTRUMENT = 24, SIDE = 30, KIND = 31, LEVEL_PRICE = 32, SEQUENCE = 16 };
enum { ASK = 2, MS = 1000000, BATCH_HEAD = 61, LEVEL_TEXT_MAX = 56 };

/* The value of one field of one record, and of the record before. */
typedef struct {
    uint8_t text[VALUE_MAX], before[VALUE_MAX];
    uint32_t length, before_length;
    int64_t place;                              /* where the field's text stood last; -1: nowhere */
} Value;

static inline uint64_t word_at(const uint8_t *row, int at) {
    uint64_t word;
    memcpy(&word, row + at, 8);
    return word;
}

static inline uint32_t instrument_of(const uint8_t *row) {
    uint32_t number;
    memcpy(&number, row + INSTRUMENT, 4);
    return number;
}

static inline uint32_t copy(uint8_t *out, const char *text) {
    uint32_t length = (uint32_t)strlen(text);
    memcpy(out, text, length);
    return length;
}

/* Write the text of a field that has one number; return its length, 0 for what can't be written. */
static uint32_t write_value(const Field *field, const Known *known, const uint8_t *head, uint64_t sequence,
                            uint64_t rows, uint8_t *out) {
    uint64_t word;
    uint16_t flags;
    switch (field->kind) {
    case FIELD_SEQUENCE: return write_integer(sequence, out);
    case FIELD_ROWS: return write_integer(rows, out);
    case FIELD_INTEGER: return write_integer(word_at(head, field->at), out);
    case FIELD_FLAGS:
        memcpy(&flags, head + field->at, 2);
        return write_integer(flags, out);
    case FIELD_SIDE:
        if (head[field->at] > ASK) return 0;
        return copy(out, head[field->at] == ASK ? "sell" : head[field->at] ? "buy" : "none");
    case FIELD_PRICE:
    case FIELD_SIZE:
        word = word_at(head, field->at);
        return word > INT64_MAX ? 0 : write_decimal(word, known->exponents[field->kind == FIELD_SIZE], out);
    case FIELD_TRADE_ID:
        word = word_at(head, field->at);
        return word ? write_uuid(word, word_at(head, field->at + 8), out)
                    : write_integer(word_at(head, field->at + 8), out);
    default: return 0;
    }
}

/* Write the levels of one side, a record's rows from `row` to `end`; return their length, -1 for a
 * row that can't be written or no room. starts: where the text of each level begins. */
static int64_t write_levels(const Writer *writer, const Known *known, const uint8_t *row, const uint8_t *end,
                            int is_ask, uint8_t *out, const uint8_t *out_end) {
    const uint8_t *begin = out;
    for (; row < end; row += writer->row_bytes) {
        if ((row[SIDE] == ASK) != is_ask) continue;
        uint64_t price = word_at(row, LEVEL_PRICE), size = word_at(row, LEVEL_PRICE + 8);
        if (price > INT64_MAX || size > INT64_MAX || out_end - out < LEVEL_TEXT_MAX) return -1;
        if (out > begin) *out++ = ',';
        out += copy(out, "[\"");
        out += write_decimal(price, known->exponents[0], out);
        out += copy(out, "\",\"");
        out += write_decimal(size, known->exponents[1], out);
        out += copy(out, "\"]");
    }
    return out - begin;
}

/* Emit the levels of one side: each begins as the one before did. */
static void pack_levels(Packer *packer, const uint8_t *text, uint32_t length) {
    uint32_t before = 0, at = 0;
    while (at < length) {
        uint32_t next = at + 1;
        while (next < length && text[next] != '[') next++;
        uint32_t same = at ? common(text + at, text + before, next - at) : 0;
        if (same > at - before) same = at - before;
        if (same >= MATCH_MIN) pack_match(packer, packer->at - (at - before), same);
        else same = 0;
        pack_literals(packer, text + at + same, next - at - same);
        before = at;
        at = next;
    }
}

/* Emit a text that stood at *place before, and digits that follow it there as they do now. */
static inline void pack_again(Packer *packer, int64_t *place, const void *text, uint32_t length,
                              const uint8_t *more, uint32_t more_length) {
    int64_t at = packer->at;
    if (*place >= 0 && at - *place <= OFFSET_MAX && length + more_length >= MATCH_MIN) {
        pack_match(packer, *place, length + more_length);
    } else {
        pack_literals(packer, text, length);
        pack_literals(packer, more, more_length);
    }
    *place = at;
}

/* Emit a text of an instrument: as it stood last, else by what it shares with another one's. */
static void pack_name(Packer *packer, int64_t *place, const char *text, uint32_t length, int64_t other_place,
                      const char *other, uint32_t other_length) {
    int is_near = *place >= 0 && packer->at - *place <= OFFSET_MAX;
    if (is_near || other == NULL || packer->at - other_place > OFFSET_MAX) {
        pack_again(packer, place, text, length, NULL, 0);
        return;
    }
    uint32_t most = length < other_length ? length : other_length, tail = 0;
    uint32_t same = common((const uint8_t *)text, (const uint8_t *)other, most);
    while (tail < most - same && text[length - 1 - tail] == other[other_length - 1 - tail]) tail++;
    if (same < MATCH_MIN) same = 0;
    if (tail < MATCH_MIN) tail = 0;
    *place = packer->at;
    if (same) pack_match(packer, other_place, same);
    pack_literals(packer, text + same, length - same - tail);
    if (tail) pack_match(packer, other_place + other_length - tail, tail);
}

/* One record whose texts are known. */
typedef struct {
    const Known *known;
    const uint8_t *levels[2];                   /* bids and asks */
    uint32_t levels_length[2];
    uint8_t head[48];                           /* lengths and numbers before the key */
    uint32_t head_length;
    uint8_t value_length[12];
    uint32_t value_length_length;
} Record;

static inline int has_levels(const Field *field) {
    return field->kind == FIELD_BIDS || field->kind == FIELD_ASKS;
}

static inline uint8_t *put(uint8_t *out, const void *from, size_t count) {
    memcpy(out, from, count);
    return out + count;
}

static uint8_t *write_plain(const Writer *writer, const Record *record, const Value *values, uint8_t *out) {
    const Known *known = record->known;
    out = put(out, record->head, record->head_length);
    out = put(out, writer->names + known->key_at, known->key_length);
    out = put(out, record->value_length, record->value_length_length);
    out = put(out, writer->names + known->prefix_at, known->prefix_length);
    for (uint64_t index = 0; index < writer->fields_count; index++) {
        const Field *field = &writer->fields[index];
        int side = field->kind == FIELD_ASKS;
        out = put(out, writer->texts + field->text_at, field->length);
        out = has_levels(field) ? put(out, record->levels[side], record->levels_length[side])
                                : put(out, values[index].text, values[index].length);
    }
    return out;
}

/* Emit a record but for its last field's text: that is a match only where another record follows. */
static void pack_record(const Writer *writer, Packer *packer, const Record *record, const Known *other,
                        Value *values) {
    const Known *known = record->known;
    const char *names = writer->names;
    int64_t *places = writer->places + 2 * (known - writer->known), sequence_at = -1;
    const int64_t *before = other ? writer->places + 2 * (other - writer->known) : places;
    const Value *sequence = NULL;
    pack_literals(packer, record->head, record->head_length);
    pack_name(packer, &places[0], names + known->key_at, known->key_length, before[0],
              other ? names + other->key_at : NULL, other ? other->key_length : 0);
    pack_literals(packer, record->value_length, record->value_length_length);
    pack_name(packer, &places[1], names + known->prefix_at, known->prefix_length, before[1],
              other ? names + other->prefix_at : NULL, other ? other->prefix_length : 0);
    for (uint64_t index = 0; index + 1 < writer->fields_count; index++) {
        const Field *field = &writer->fields[index];
        Value *value = &values[index];
        const char *text = writer->texts + field->text_at;
        if (has_levels(field)) {
            int side = field->kind == FIELD_ASKS;
            pack_again(packer, &value->place, text, field->length, NULL, 0);
            pack_levels(packer, record->levels[side], record->levels_length[side]);
            continue;
        }
        if (field->kind == FIELD_TRADE_ID && sequence && value->length >= MATCH_MIN &&
            value->length == sequence->length && memcmp(value->text, sequence->text, value->length) == 0) {
            pack_again(packer, &value->place, text, field->length, NULL, 0); /* it was just written */
            pack_match(packer, sequence_at, value->length);
        } else {
            uint32_t same = value->place >= 0 && value->length == value->before_length
                                ? common(value->text, value->before, value->length) : 0;
            pack_again(packer, &value->place, text, field->length, value->text, same);
            pack_literals(packer, value->text + same, value->length - same);
        }
        memcpy(value->before, value->text, value->length);
        value->before_length = value->length;
        if (field->kind == FIELD_INTEGER && field->at == SEQUENCE) {
            sequence = value;
            sequence_at = packer->at - value->length;
        }
    }
}

/* Write all texts of a record; return the bytes that it has, 0 for rows that can't be written. */
static uint64_t prepare(const Writer *writer, Record *record, Value *values, const uint8_t *row, uint64_t rows,
                        uint64_t sequence, int64_t index, int64_t base_ms) {
    const uint8_t *end = row + rows * writer->row_bytes, *head = end - writer->row_bytes;
    const Known *known = record->known = &writer->known[instrument_of(head)];
    uint8_t *levels = writer->levels;
    const uint8_t *levels_end = levels + writer->levels_room;
    uint64_t value = known->prefix_length;
    record->levels_length[0] = record->levels_length[1] = 0;
    for (uint64_t at = 0; at + 1 < writer->fields_count; at++) {
        const Field *field = &writer->fields[at];
        value += field->length;
        if (has_levels(field)) {
            int side = field->kind == FIELD_ASKS;
            int64_t length = write_levels(writer, known, row, end, side, levels, levels_end);
            if (length < 0) return 0;
            record->levels[side] = levels;
            record->levels_length[side] = (uint32_t)length;
            levels += length;
            value += (uint64_t)length;
        } else {
            values[at].length = write_value(field, known, head, sequence, rows, values[at].text);
            if (values[at].length == 0) return 0;
            value += values[at].length;
        }
    }
    const uint64_t headers = writer->fields[writer->fields_count - 1].length - writer->closing;
    value += writer->closing;
    uint8_t numbers[32];
    uint32_t length = 0;
    numbers[length++] = 0; /* attributes */
    length += write_varint((int64_t)(word_at(head, TS_RECV) / MS) - base_ms, numbers + length);
    length += write_varint(index, numbers + length);
    length += write_varint(known->key_length, numbers + length);
    record->value_length_length = write_varint((int64_t)value, record->value_length);
    uint64_t body = length + known->key_length + record->value_length_length + value + headers;
    record->head_length = write_varint((int64_t)body, record->head);
    memcpy(record->head + record->head_length, numbers, length);
    record->head_length += length;
    return body + (record->head_length - length);
}

/* Look at all rows before any is written; return DONE, or what stands in the way. */
static int check(Writer *writer, const uint8_t *rows, uint64_t count) {
    for (uint64_t index = 0; index < count; index++, rows += writer->row_bytes) {
        uint32_t number = instrument_of(rows);
        if (rows[KIND] != writer->row_kind || word_at(rows, TS_RECV) > INT64_MAX || word_at(rows, 0) > INT64_MAX)
            return ODD_ROW;
        if (number >= writer->known_count || writer->known[number].prefix_length == 0) {
            writer->unknown = number;
            return UNKNOWN;
        }
        writer->places[2 * number] = writer->places[2 * number + 1] = -1;
    }
    return DONE;
}

/* Write records of consecutive rows, as many as `bytes_max` has room for, one at least.
 *
 * starts: where the rows of each record begin, and where the last one's end. first_sequence: the number
 * of the first row. base_ms: ts_recv of the first record. packs: 1 for an LZ4 block. */
int native_records(Writer *writer, const uint8_t *rows, const int64_t *starts, int64_t count,
                   int64_t first_sequence, int64_t base_ms, int64_t bytes_max, int64_t packs) {
    Value values[FIELDS_MAX];
    Record record;
    Packer packer;
    const Known *other = NULL;
    const Field *last = &writer->fields[writer->fields_count - 1];
    const char *end = writer->texts + last->text_at;
    uint8_t *out = writer->out;
    int64_t end_at = -1;
    uint64_t plain = 0;
    int problem = check(writer, rows, (uint64_t)starts[count]);
    if (problem) return problem;
    memset(values, 0, sizeof values);
    for (uint64_t index = 0; index < writer->fields_count; index++) values[index].place = -1;
    pack_begin(&packer, out);
    writer->records = 0;
    for (int64_t index = 0; index < count; index++) {
        uint64_t first = (uint64_t)starts[index], row_count = (uint64_t)(starts[index + 1] - starts[index]);
        uint64_t size = prepare(writer, &record, values, rows + first * writer->row_bytes, row_count,
                                (uint64_t)first_sequence + first, index, base_ms);
        if (size == 0) return ODD_ROW;
        if (index && plain + size + BATCH_HEAD > (uint64_t)bytes_max) break;
        plain += size;
        if (plain + plain / 255 + 64 > writer->room) return NO_ROOM;
        writer->records++;
        if (!packs) {
            out = write_plain(writer, &record, values, out);
            continue;
        }
        if (index) pack_again(&packer, &end_at, end, last->length, NULL, 0); /* of the one before */
        pack_record(writer, &packer, &record, other, values);
        other = record.known;
    }
    if (packs) {
        pack_literals(&packer, end, last->length);
        close_literals(&packer);
        out = packer.out;
    }
    writer->plain_bytes = plain;
    writer->out_bytes = (uint64_t)(out - writer->out);
    return DONE;
}
