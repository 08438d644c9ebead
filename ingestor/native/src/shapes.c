/* Stage 1: one payload -> rows, by the shapes of its market.
 *
 * A payload is taken if it is exactly one of the texts that a shape spells out, else it is left as
 * it is and nothing is changed. No venue is named here: what is matched comes from adapter/shapes.py.
 */
#include "native.h"
#include "text.h"

static inline uint64_t hash_of(const char *text, size_t size) {
    uint64_t hash = size * 0x9E3779B97F4A7C15ull, word;
    for (; size >= 8; text += 8, size -= 8) {
        memcpy(&word, text, 8);
        hash = (hash ^ word) * 0xff51afd7ed558ccdull;
        hash ^= hash >> 32;
    }
    word = 0;
    memcpy(&word, text, size);
    hash = (hash ^ word) * 0xff51afd7ed558ccdull;
    return hash ^ hash >> 32;
}

uint64_t native_hash(const char *text, uint64_t size) { return hash_of(text, size); }

/* A slot is always free. */
static inline const Symbol *find(const Shapes *shapes, const char *text, size_t size) {
    uint64_t hash = hash_of(text, size);
    for (uint64_t slot = hash & shapes->symbols_mask;; slot = (slot + 1) & shapes->symbols_mask) {
        const Symbol *symbol = &shapes->symbols[slot];
        if (symbol->length == 0) return NULL;
        if (symbol->hash == hash && symbol->length == size &&
            memcmp(shapes->names + symbol->text_at, text, size) == 0)
            return symbol;
    }
}

const Symbol *native_find(const Shapes *shapes, const char *text, size_t size) {
    return find(shapes, text, size);
}

/* Return the choice that stands at `at`, NULL where none does. */
static inline const Choice *choose(const Shapes *shapes, const Operation *operation, const char *at,
                                   const char *end) {
    for (int index = 0; index < operation->choices; index++) {
        const Choice *choice = &operation->choice[index];
        if ((size_t)(end - at) >= choice->length &&
            memcmp(at, shapes->texts + choice->text_at, choice->length) == 0)
            return choice;
    }
    return NULL;
}

static inline int64_t number_at(const uint8_t *row, int at) {
    int64_t number;
    memcpy(&number, row + at, 8);
    return number;
}

/* Append one level to its side; 0: no room. Asks wait in the scratch until the row ends. */
static inline int add_level(Output *output, const uint8_t *row, int side, uint32_t counts[2]) {
    uint64_t pending = output->levels_used + counts[1];
    if (pending >= output->levels_room) return 0;
    int64_t *pair = side == 1 ? output->levels + 2 * output->levels_used++
                              : output->asks + 2 * counts[1];
    memcpy(pair, row + LEVEL_PRICE, 16);
    counts[side == 1 ? 0 : 1]++;
    return 1;
}

/* Append the row that is complete; 1: done, 0: a quote that cannot be, -1: no room.
 *
 * A quote's price is 0 only where its side is empty, which its size says. */
static inline int add_row(Output *output, int row_class, uint8_t *row, uint32_t counts[2],
                          int64_t frame) {
    RowArray *rows = &output->rows[row_class];
    if (rows->used >= rows->room) return -1;
    if (row_class == QUOTES) {
        if ((number_at(row, 32) == 0 && number_at(row, 40) != 0) ||
            (number_at(row, 48) == 0 && number_at(row, 56) != 0))
            return 0;
    } else if (row_class == UPDATES) {
        memcpy(output->levels + 2 * output->levels_used, output->asks, 16 * (size_t)counts[1]);
        output->levels_used += counts[1];
        uint32_t number = (uint32_t)frame;
        memcpy(row + 44, counts, 8); /* UPDATE.bids, UPDATE.asks */
        memcpy(row + 56, &number, 4); /* UPDATE.frame */
        counts[0] = counts[1] = 0;
    }
    memcpy(rows->rows + ROW_BYTES * rows->used, row, ROW_BYTES);
    rows->frames[rows->used++] = frame;
    return 1;
}

/* Append a row of one level; 0: no room. Which one is the last is not known yet. */
static inline int add_level_row(RowArray *rows, const uint8_t *row, int side) {
    if (rows->used >= rows->room) return 0;
    uint8_t *out = rows->rows + LEVEL_ROW_BYTES * rows->used++;
    memcpy(out, row, ROW_HEAD_BYTES);
    memcpy(out + ROW_HEAD_BYTES, row + LEVEL_PRICE, 16);
    out[ROW_FLAGS] &= (uint8_t)~FLAG_LAST;
    out[ROW_SIDE] = (uint8_t)side;
    return 1;
}

/* Flag the last of the rows from `first` on; 0: there are others than was said. */
static inline int end_levels(RowArray *rows, uint64_t first, const uint8_t *row) {
    uint64_t count = rows->used - first;
    if (count == 0 || count != (uint64_t)number_at(row, RECORD_ROWS)) return 0;
    memcpy(rows->rows + LEVEL_ROW_BYTES * (rows->used - 1) + ROW_FLAGS, row + ROW_FLAGS, 2);
    return 1;
}

/* Turn the rows from `first` on around. */
static void turn_around(RowArray *rows, uint64_t first) {
    uint8_t row[ROW_BYTES];
    for (uint64_t last = rows->used - 1; rows->used && first < last; first++, last--) {
        memcpy(row, rows->rows + ROW_BYTES * first, ROW_BYTES);
        memcpy(rows->rows + ROW_BYTES * first, rows->rows + ROW_BYTES * last, ROW_BYTES);
        memcpy(rows->rows + ROW_BYTES * last, row, ROW_BYTES);
    }
}

static inline int is_between(const Operation *operation, uint64_t value) {
    return operation->least <= value && value <= operation->most;
}

int native_match_shape(const Shapes *shapes, const Shape *shape, Output *output, const char *at,
                       const char *end, uint8_t row[REGISTER_BYTES], const Symbol *symbol, int64_t frame) {
    RowArray *rows = &output->rows[shape->row_class];
    const uint64_t rows_before = rows->used, levels_before = output->levels_used;
    const Operation *first = shapes->operations + shape->first;
    uint32_t counts[2] = {0, 0}; /* bids and asks of the update */
    const char *before; /* where a number begins */
    uint64_t value, halves[2];
    int64_t number;
    int result = 0;
    for (const Operation *operation = first;; operation++) {
        switch (operation->kind) {
        case OP_LITERAL:
            if ((size_t)(end - at) < operation->length ||
                memcmp(at, shapes->texts + operation->text_at, operation->length) != 0)
                goto other;
            at += operation->length;
            break;
        case OP_SYMBOL: {
            const char *quote = memchr(at, '"', (size_t)(end - at));
            if (quote == NULL || (symbol = find(shapes, at, (size_t)(quote - at))) == NULL) goto other;
            memcpy(row + operation->at, &symbol->number, 4);
            at = quote;
            break;
        }
        case OP_INTEGER:
            if ((at = read_integer(at, end, &value)) == NULL || !is_between(operation, value)) goto other;
            memcpy(row + operation->at, &value, operation->width);
            if (operation->at2) memcpy(row + operation->at2, &value, 8);
            break;
        case OP_MS:
            if ((at = read_integer(at, end, &value)) == NULL || !is_between(operation, value)) goto other;
            value *= 1000000;
            memcpy(row + operation->at, &value, 8);
            break;
        case OP_DECIMAL:
            before = at;
            at = read_decimal(at, end, symbol->exponents[operation->width], &number);
            if (at == NULL || !is_between(operation, (uint64_t)number)) goto other;
            if (operation->at2 && decimals_in(before, at) > symbol->exponents[operation->width]) goto other;
            memcpy(row + operation->at, &number, 8);
            break;
        case OP_EXACT:
            if ((at = read_exact(at, end, symbol->exponents[operation->width], &number)) == NULL) goto other;
            memcpy(row + operation->at, &number, 8);
            break;
        case OP_SAME:
            at = read_decimal(at, end, symbol->exponents[operation->width], &number);
            if (at == NULL || number != number_at(row, operation->at)) goto other;
            break;
        case OP_CHOICE: {
            const Choice *choice = choose(shapes, operation, at, end);
            if (choice == NULL) goto other;
            row[operation->at] = choice->value;
            at += choice->length;
            break;
        }
        case OP_TEXT:
            at = skip_text(at, end);
            break;
        case OP_WORD:
            if ((at = skip_word(at, end)) == NULL) goto other;
            break;
        case OP_NUMBER:
            if ((at = skip_number(at, end)) == NULL) goto other;
            break;
        case OP_DIGITS:
            if ((at = read_integer(at, end, &value)) == NULL) goto other;
            break;
        case OP_ISO:
            if ((at = read_iso(at, end, &value)) == NULL || !is_between(operation, value)) goto other;
            memcpy(row + operation->at, &value, 8);
            break;
        case OP_UUID:
            if ((at = read_uuid(at, end, halves)) == NULL) goto other;
            memcpy(row + operation->at, &halves[0], 8);
            memcpy(row + operation->at2, &halves[1], 8);
            break;
        case OP_ID:
            if ((at = read_id(at, end, halves)) == NULL) goto other;
            memcpy(row + operation->at, &halves[0], 8);
            memcpy(row + operation->at2, &halves[1], 8);
            break;
        case OP_EACH:
            if (at >= end || *at++ != '[') goto other;
            if (at < end && *at == ']') {
                if (operation->width) goto other;
                at++;
                operation = first + operation->jump;
            }
            break;
        case OP_NEXT:
            if (at >= end || (*at != ',' && *at != ']')) goto other;
            if (*at++ == ',') operation = first + operation->jump;
            break;
        case OP_LEVEL:
            if (!add_level(output, row, operation->width ? operation->width : row[LEVEL_SIDE], counts))
                goto full;
            break;
        case OP_LEVEL_ROW:
            if (!add_level_row(rows, row, operation->width)) goto full;
            break;
        case OP_LEVELS_END:
            if (!end_levels(rows, rows_before, row)) goto other;
            break;
        case OP_COUNT:
            if ((at = read_integer(at, end, &value)) == NULL || value != shapes->next) goto other;
            if (operation->width) memcpy(row + operation->at, &value, 8);
            if (operation->at2) memcpy(row + operation->at2, &value, 8);
            break;
        case OP_ROW:
            if ((result = add_row(output, shape->row_class, row, counts, frame)) < 0) goto full;
            if (result == 0) goto other;
            break;
        case OP_END:
            if (at != end) goto other;
            if (shape->newest_first) turn_around(rows, rows_before);
            return 1;
        default:
            goto other;
        }
    }
full:
    result = -1;
    goto back;
other:
    result = 0;
back:
    rows->used = rows_before;
    output->levels_used = levels_before;
    return result;
}

int native_match(Shapes *shapes, Output *output, const char *text, size_t size, int64_t ts_recv,
                 int64_t frame) {
    uint8_t row[REGISTER_BYTES];
    for (uint32_t tried = 0, index = shapes->last; tried < shapes->shape_count; tried++, index++) {
        if (index >= shapes->shape_count) index = 0;
        const Shape *shape = &shapes->shapes[index];
        memcpy(row, shape->row, ROW_BYTES);
        memcpy(row, &ts_recv, 8); /* ts_event, where the venue gives none */
        memcpy(row + 8, &ts_recv, 8);
        /* No symbol yet: a declaration names it before the first decimal. */
        int taken = native_match_shape(shapes, shape, output, text, text + size, row, NULL, frame);
        if (taken > 0) {
            shapes->last = index;
            shapes->taken[index]++;
            shapes->next += shapes->is_counted;
        }
        if (taken) return taken;
    }
    return 0;
}
