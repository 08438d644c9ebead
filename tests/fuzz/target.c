/* The compiled way under libFuzzer: any bytes may come, nothing may be read or written beside its
 * array, and no more rows may come than there is room for. inputs.h is made by inputs.py.
 *
 * The first byte names a market, the records of topics, or a book; the second one says how the rest
 * comes. */
#include "books.h"
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
void native_books(Book *, const Update *, const int64_t *, const int64_t *, uint8_t *, int64_t, int64_t, int64_t);

static void require(int holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

enum { SIDE_ROOM = 6, UPDATE_BYTES = 5, LEVEL_BYTES = 2 };

/* A copy of `bytes` bytes that ends where its memory ends; `used` of them are filled. */
static void *exact(const void *from, size_t used, size_t bytes) {
    void *copy = malloc(bytes ? bytes : 1);
    if (used) memcpy(copy, from, used);
    return copy;
}

static void check_side(const Side *side) {
    require(side->used <= side->room, "levels beyond their side");
    for (uint32_t at = 0; at < side->used; at++) {
        require(side->sizes[at] > 0, "a level without a size");
        require(at == 0 || side->keys[at - 1] < side->keys[at], "levels out of order");
    }
}

/* Updates of one book, in small arrays. An update has five bytes: levels of both sides, by how much
 * its numbers differ from the next ones, flags. A level has two: its price and its size. */
static void run_book(const uint8_t *data, size_t size, int how) {
    enum { UPDATES_MAX = 64 };
    static Update updates[UPDATES_MAX];
    static int64_t prices[UPDATES_MAX * 14], sizes[UPDATES_MAX * 14];
    const int64_t bids[] = {3, 5, 9}, asks[] = {-40, -20}, held[] = {1, 2, 3};
    size_t count = 0, levels = 0;
    uint64_t last = 10;
    for (const uint8_t *at = data, *end = data + size; count < UPDATES_MAX && end - at >= UPDATE_BYTES; count++) {
        Update *update = &updates[count];
        memset(update, 0, sizeof *update);
        update->instrument = how >> 7;
        update->bids = at[0] % 8;
        update->asks = at[1] % 8;
        update->previous = last + at[2] / 250;
        update->first = last + 1 + at[2] / 250;
        update->last = last = last + 1 + at[3] / 250;
        update->flags = at[4] < 8 ? at[4] : 0;
        at += UPDATE_BYTES;
        for (uint32_t level = 0; level < update->bids + update->asks; level++, levels++) {
            const int has_more = end - at >= LEVEL_BYTES;
            /* Bids below 20 and asks from 20 on, but for some that cross. */
            prices[levels] = 1 + (has_more ? at[0] < 250 ? at[0] % 19 : at[0] : 0) + 19 * (level >= update->bids);
            sizes[levels] = has_more ? at[1] < 255 ? at[1] % 4 : -1 : 0;
            if (has_more) at += LEVEL_BYTES;
        }
    }
    Book *book = calloc(2, sizeof *book); /* of instruments 0 and 1; the second one is not lent */
    book->rule = how % 4;
    book->limit = SIDE_ROOM - how / 4 % 4;
    book->last = 10;
    book->is_lent = 1;
    const size_t room = 8 * SIDE_ROOM;
    book->sides[0] = (Side){exact(bids, sizeof bids, room), exact(held, sizeof bids, room), 3, SIDE_ROOM};
    book->sides[1] = (Side){exact(asks, sizeof asks, room), exact(held, sizeof asks, room), 2, SIDE_ROOM};
    Update *all = exact(updates, count * sizeof *all, count * sizeof *all);
    int64_t *all_prices = exact(prices, 8 * levels, 8 * levels), *all_sizes = exact(sizes, 8 * levels, 8 * levels);
    uint8_t *done = malloc(count ? count : 1);
    native_books(book, all, all_prices, all_sizes, done, 0, (int64_t)count, 0);
    check_side(&book->sides[0]);
    check_side(&book->sides[1]);
    for (size_t at = 1; at < count; at++)
        require(done[at] == UPDATE_LEFT || done[at - 1] == UPDATE_DONE, "an update behind one that was left");
    require(!book->is_lent || (book->sides[0].used <= book->limit && book->sides[1].used <= book->limit) ||
                book->last == 10, "a book that is too long is kept");
    for (int side = 0; side < 2; side++) {
        free(book->sides[side].keys);
        free(book->sides[side].sizes);
    }
    free(book);
    free(all);
    free(all_prices);
    free(all_sizes);
    free(done);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    if (data[0] % (MARKETS + 1) == MARKETS) {
        run_book(data + 2, size - 2, data[1]);
        return 0;
    }
    const Market *market = &markets[data[0] % (MARKETS + 1)];
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
