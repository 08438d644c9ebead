/* The compiled way under libFuzzer: any bytes may come, nothing may be read or written beside its
 * array, and no more rows may come than there is room for. inputs.h is made by inputs.py.
 *
 * The first byte names a market, or the records of topics; the second one says how the rest comes. */
#include "native.h"
#include "reading.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct {
    const uint8_t *operations, *shapes, *texts, *symbols, *names;
    uint64_t mask;
    uint32_t count, is_counted;
} Market;

#include "inputs.h"

enum { MARKETS = sizeof markets / sizeof markets[0], ROWS = 24, LEVELS = 48, OTHERS = 8, CALLS_MAX = 1000 };

int64_t native_take(Take *, const uint8_t *, int64_t, int64_t, int64_t, int64_t, int64_t);
int64_t native_take_each(Take *, const char *, const int64_t *, const int64_t *, int64_t, int64_t, int64_t);
int native_read(Reading *, const uint8_t *, uint64_t);

static void require(int holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    const Market *market = &markets[data[0] % MARKETS];
    const int is_records = market == &markets[MARKETS - 1], how = data[1];
    uint64_t taken[64] = {0};
    Shapes shapes = {(const Operation *)market->operations, (const Shape *)market->shapes,
                     (const char *)market->texts, (const Symbol *)market->symbols,
                     (const char *)market->names, market->mask, taken, market->count, 0,
                     market->is_counted, 0};
    Output output = {.levels_room = LEVELS};
    /* Arrays of their own on the heap, so that a step beside them is found. */
    for (int index = 0; index < ROW_CLASSES; index++) {
        output.rows[index].rows = malloc(ROWS * ROW_BYTES);
        output.rows[index].frames = malloc(ROWS * sizeof(int64_t));
        output.rows[index].room = ROWS;
    }
    output.levels = malloc(LEVELS * 16);
    output.asks = malloc(LEVELS * 16);
    int64_t *ends = malloc(ROWS * 8), *deltas = malloc(ROWS * 8), *others = malloc(OTHERS * 24);
    uint8_t *text = malloc(size - 2 ? size - 2 : 1);
    memcpy(text, data + 2, size - 2);
    if (is_records) {
        Reading reading = {.shapes = &shapes, .output = &output, .prefixes = (const Prefix *)prefixes,
                           .texts = (const char *)prefix_texts, .ends = ends, .deltas = deltas,
                           .records_max = ROWS, .left = (uint64_t)how, .most_delta = 1 << 20};
        for (int call = 0, result = READ_CUT; call < CALLS_MAX; call++) {
            result = native_read(&reading, text, size - 2);
            require(reading.at <= size - 2 && reading.records <= ROWS, "a run beyond its arrays");
            if (result == READ_OTHER)
                require(reading.value_at + reading.value_bytes <= size - 2, "a value beyond the batch");
            if (result == READ_ALL || result == READ_BROKEN || (result == READ_CUT && !reading.records)) break;
        }
    } else {
        uint64_t connection = 0, next = 0;
        Take take = {.shapes = &shapes, .output = &output, .others = others, .others_max = OTHERS,
                     .connections = &connection, .next = &next};
        if (how % 2) {
            int64_t end = native_take(&take, text, (int64_t)(size - 2), 0, 1 << 16, 1, 0);
            require(end >= 0 && (size_t)end <= size - 2, "a read beyond its end");
        } else {
            int64_t bytes = (int64_t)(size - 2), time = 1;
            require(native_take_each(&take, (const char *)text, &bytes, &time, 0, 1, 0) <= 1, "one frame");
        }
        require(take.others_count <= OTHERS, "others beyond their array");
        require(output.levels_used <= LEVELS, "levels beyond their array");
    }
    for (int index = 0; index < ROW_CLASSES; index++) {
        require(output.rows[index].used <= ROWS, "rows beyond their array");
        free(output.rows[index].rows);
        free(output.rows[index].frames);
    }
    free(output.levels);
    free(output.asks);
    free(ends);
    free(deltas);
    free(others);
    free(text);
    return 0;
}

#ifdef WITHOUT_LIBFUZZER
/* Run each file of the command line, and some changes of it: for compilers without libFuzzer. */
int main(int count, char **names) {
    uint64_t state = 88172645463325252ull;
    for (int index = 1; index < count; index++) {
        static uint8_t text[1 << 16], changed[1 << 16];
        FILE *file = fopen(names[index], "rb");
        require(file != NULL, names[index]);
        size_t size = fread(text, 1, sizeof text, file);
        fclose(file);
        for (int turn = 0; turn < 200; turn++) {
            size_t length = size;
            memcpy(changed, text, size);
            for (int change = 0; turn && size && change < 1 + turn % 4; change++) {
                state ^= state << 13, state ^= state >> 7, state ^= state << 17;
                changed[2 + state % size] = (uint8_t)(state >> 32);
                if (turn % 5 == 0) length = state % (size + 1);
            }
            LLVMFuzzerTestOneInput(changed, length);
        }
    }
    printf("%d files\n", count - 1);
    return 0;
}
#endif
