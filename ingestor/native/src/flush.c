/* Stage 3: the rows of a flush, looked at one by one: numbers that go on, and lags by feed.
 *
 * Python does the same with numpy, in ten passes; it stays the reference, and sees to every row at
 * which the functions here stop.
 */
#include "flush.h"
#include "books.h"

enum { KIND_TRADE = 1, FLAG_SNAPSHOT = 2, FLAG_BACKFILL = 2048, TRADE_BYTES = 64, TRADE_ID_HIGH = 48 };

static inline const Head *head_of(const uint8_t *rows, int64_t index, uint64_t row_bytes) {
    return (const Head *)(const void *)(rows + (uint64_t)index * row_bytes);
}

/* Take note of trades that are plain; return the number of the first that is not, `count`: all are.
 *
 * A trade is plain if it is no mark and not fetched, and has the number that its instrument's way of
 * numbering wants. ways: FOLLOW_..., last: the highest number, last_ns: its ts_event; by instrument. */
int64_t native_follow(uint8_t *rows, int64_t count, const uint8_t *ways, uint64_t instruments,
                      int64_t *last, int64_t *last_ns) {
    int64_t index = 0;
    for (; index < count; index++) {
        const Head *row = head_of(rows, index, TRADE_BYTES);
        uint64_t *below = (uint64_t *)(void *)(rows + index * TRADE_BYTES + TRADE_ID_HIGH);
        uint32_t instrument = row->instrument;
        if (row->flags & FLAG_BACKFILL || instrument >= instruments) break;
        uint8_t way = ways[instrument];
        if (way == FOLLOW_NONE) continue;
        int64_t number = (int64_t)row->sequence;
        if (way == FOLLOW_PYTHON || row->kind != KIND_TRADE || number <= last[instrument]) break;
        uint64_t more = (uint64_t)(number - last[instrument]) - 1;
        if (more != (way == FOLLOW_SPANS ? *below : 0) && way != FOLLOW_HIGHER) break;
        if (way == FOLLOW_SPANS) *below = 0;
        last[instrument] = number;
        last_ns[instrument] = row->ts_event;
    }
    return index;
}

/* Take note of the highest number of rows that were neither resent nor fetched; return the number of
 * the first that was, `count`: none was. highest: by instrument. */
int64_t native_highest(const uint8_t *rows, int64_t count, int64_t row_bytes, uint64_t *highest, uint64_t instruments) {
    int64_t index = 0;
    for (; index < count; index++) {
        const Head *row = head_of(rows, index, (uint64_t)row_bytes);
        if (row->flags & (FLAG_SNAPSHOT | FLAG_BACKFILL) || row->instrument >= instruments) break;
        if (row->sequence > highest[row->instrument]) highest[row->instrument] = row->sequence;
    }
    return index;
}

/* Return the bin of a duration: how many edges are below it. near: a guess. */
static inline uint64_t bin_of(const Durations *in, int64_t value, uint64_t near) {
    uint64_t edges = in->bins - 1, low = 0, high = edges;
    if ((near == 0 || in->edges[near - 1] < value) && (near == edges || value <= in->edges[near])) return near;
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (in->edges[middle] < value) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* Count a duration; return its bin. A clock that was set back makes it negative: nothing in the sum. */
static inline uint64_t count_duration(const Durations *in, int64_t feed, int64_t value, uint64_t near) {
    uint64_t bin = bin_of(in, value, near);
    in->counts[(uint64_t)feed * in->bins + bin]++;
    if (value > 0) in->sums[feed] += (double)value;
    return bin;
}

typedef struct {
    int64_t ts_event, ts_recv;
    uint32_t instrument;
    uint16_t flags;
    int is_tick;
} Seen;

static inline Seen seen_of(const RowCounts *into, const uint8_t *rows, int64_t index) {
    if (into->are_updates) {
        const Update *row = (const Update *)(const void *)(rows + (uint64_t)index * sizeof(Update));
        return (Seen){row->ts_event, row->ts_recv, row->instrument, row->flags, row->bids || row->asks};
    }
    const Head *row = head_of(rows, index, into->row_bytes);
    int is_tick = (!into->kind || row->kind == into->kind) && (row->flags & into->wanted) == into->wanted;
    return (Seen){row->ts_event, row->ts_recv, row->instrument, row->flags, is_tick};
}

/* Count rows and their lags; return how many: it stops at an instrument that nobody knows.
 * now_ns: ns since the epoch. waited_ns: how long all of them were in the sink. */
int64_t native_count_rows(const RowCounts *into, const uint8_t *rows, int64_t count, int64_t now_ns,
                     int64_t waited_ns) {
    uint64_t near = 0, waited = 0;
    int64_t index = 0;
    for (; index < count; index++) {
        Seen row = seen_of(into, rows, index);
        if (row.instrument >= into->instruments) break;
        int64_t feed = into->feed_of[row.instrument];
        if (into->rows) into->rows[feed]++;
        if (!row.is_tick) continue;
        near = count_duration(&into->lag, feed, now_ns - row.ts_recv, near);
        if (into->waited.counts) waited = count_duration(&into->waited, feed, waited_ns, waited);
        if (into->last_recv) into->last_recv[feed] = row.ts_recv;
        if (into->seen_rows) {
            into->seen_rows[row.instrument]++;
            into->seen_recv[row.instrument] = row.ts_recv;
            into->seen_event[row.instrument] = row.ts_event;
        }
        if (into->least_raw && !(row.flags & into->no_raw)) {
            int64_t raw = row.ts_recv - row.ts_event;
            if (raw < into->least_raw[feed]) into->least_raw[feed] = raw;
        }
    }
    return index;
}

/* Count how long rows that `native_count_rows` has counted were on their way from the venue: ts_recv -
 * ts_event, above the least of their feed. least_ns: by feed. into: the durations. */
void native_count_ways(const RowCounts *counts, const uint8_t *rows, int64_t count,
                       const int64_t *least_ns, const Durations *into) {
    uint64_t near = 0;
    for (int64_t index = 0; index < count; index++) {
        Seen row = seen_of(counts, rows, index);
        if (!row.is_tick || row.flags & counts->no_raw) continue;
        int64_t feed = counts->feed_of[row.instrument];
        near = count_duration(into, feed, row.ts_recv - row.ts_event - least_ns[feed], near);
    }
}
