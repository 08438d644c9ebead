/* Stage 2: what a socket read returned, or payloads that came alone -> frames taken, and others.
 *
 * Whole final text and binary frames with 7 or 16 bits of length are read here (RFC 6455 section
 * 5.2); the caller sees to all else: control frames, fragments, masks, longer ones.
 */
#include "books.h"
#include "flush.h"
#include "native.h"
#include "reading.h"
#include "records.h"

enum { TEXT_FRAME = 0x81, BINARY_FRAME = 0x82, LENGTH_16 = 126 };

/* Find the payload of the frame at `at`; return 1, 0: none of ours, or not whole. */
static inline int payload_of(const uint8_t *at, const uint8_t *end, uint64_t longest,
                             const uint8_t **payload, uint64_t *size) {
    if (end - at < 2 || (at[0] != TEXT_FRAME && at[0] != BINARY_FRAME)) return 0;
    uint64_t length = at[1];
    at += 2;
    if (length == LENGTH_16) {
        if (end - at < 2) return 0;
        length = (uint64_t)at[0] << 8 | at[1];
        at += 2;
    } else if (length > LENGTH_16) {
        return 0; /* masked, or with 64 bits of length */
    }
    if (length > longest || (uint64_t)(end - at) < length) return 0;
    *payload = at;
    *size = length;
    return 1;
}

static inline void note_other(Take *take, int64_t offset, uint64_t size, int64_t frame) {
    int64_t *other = take->others + 3 * take->others_count++;
    other[0] = offset;
    other[1] = (int64_t)size;
    other[2] = frame;
}

static inline void begin(Take *take) { take->others_count = take->frames = take->bytes = take->is_full = 0; }

/* Take the frames of a read from `at` on; return where that ended.
 *
 * longest: bytes of a payload. ts_recv: ns since the epoch. Frames are numbered from `frame` on: those
 * that are taken have the number frame + 2k after k others, which have the odd ones between. */
int64_t native_take(Take *take, const uint8_t *data, int64_t size, int64_t at, int64_t longest,
                    int64_t ts_recv, int64_t frame) {
    const uint8_t *place = data + at, *end = data + size, *payload;
    uint64_t length;
    begin(take);
    while (payload_of(place, end, (uint64_t)longest, &payload, &length)) {
        int64_t number = frame + 2 * (int64_t)take->others_count;
        int taken = native_match(take->shapes, take->output, (const char *)payload, length, ts_recv, number);
        if (taken < 0 || (taken == 0 && take->others_count == take->others_max)) {
            take->is_full = 1;
            break;
        }
        if (taken) {
            take->frames++;
            take->bytes += length;
        } else {
            note_other(take, payload - data, length, number + 1);
            take->is_full = take->shapes->is_counted;
        }
        place = payload + length;
        if (take->is_full) break;
    }
    return place - data;
}

/* Take payloads that stand one after the other in `data`, from number `first` of `count` on; return
 * the number of the first that was not looked at. sizes: bytes of each. times: ts_recv of each, ns
 * since the epoch. Payload i is frame `frame` + i, of connection take->connections[i] where frames are
 * counted. */
int64_t native_take_each(Take *take, const char *data, const int64_t *sizes, const int64_t *times,
                         int64_t first, int64_t count, int64_t frame) {
    int64_t offset = 0, index = 0;
    Shapes *shapes = take->shapes;
    begin(take);
    for (; index < first; index++) offset += sizes[index];
    for (; index < count && !take->is_full; offset += sizes[index++]) {
        if (shapes->is_counted) shapes->next = take->next[take->connections[index]];
        int taken = native_match(shapes, take->output, data + offset, (size_t)sizes[index],
                                 times[index], frame + index);
        if (taken < 0 || (taken == 0 && take->others_count == take->others_max)) {
            take->is_full = 1;
            break;
        }
        if (taken) {
            take->frames++;
            take->bytes += (uint64_t)sizes[index];
        } else {
            note_other(take, index, (uint64_t)sizes[index], frame + index);
            take->is_full = shapes->is_counted;
        }
        if (shapes->is_counted) take->next[take->connections[index]] = shapes->next;
    }
    return index;
}

/* Return the size of a shared structure in bytes, 0 where there is none of this number. */
uint64_t native_size(int which) {
    static const uint64_t sizes[] = {sizeof(Operation), sizeof(Shape), sizeof(Symbol), sizeof(Shapes),
                                     sizeof(Output), sizeof(Take), sizeof(Field), sizeof(Known),
                                     sizeof(Writer), sizeof(Prefix), sizeof(Reading), sizeof(Book),
                                     sizeof(Update), sizeof(Head), sizeof(RowCounts)};
    return which >= 0 && which < (int)(sizeof sizes / sizeof sizes[0]) ? sizes[which] : 0;
}

#ifndef SOURCES_DIGEST
#define SOURCES_DIGEST ""
#endif

/* Return what tells of which sources this was made. */
const char *native_sources(void) { return SOURCES_DIGEST; }
