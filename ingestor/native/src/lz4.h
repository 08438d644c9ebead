/* An LZ4 block that is written by saying what repeats, with no search for it.
 *
 * A block is a list of sequences: a token (two lengths of four bits), literals, and a match that
 * copies bytes which stand up to 65,535 bytes before. Longer lengths have more bytes of 255. The last
 * sequence has literals alone, five at least, and no match begins in the block's last twelve bytes:
 * the caller ends with the literals of a record's end, which are more.
 */
#ifndef INGESTOR_LZ4_H
#define INGESTOR_LZ4_H

#include <stdint.h>
#include <string.h>

enum { MATCH_MIN = 4, OFFSET_MAX = 65535, NIBBLE_FULL = 15 };

/* token: of the sequence that is being written; its literals follow it directly, up to `out`.
 * at: bytes of plain text so far. */
typedef struct {
    uint8_t *token, *out;
    int64_t at;
} Packer;

static inline void pack_begin(Packer *packer, uint8_t *out) {
    packer->token = out;
    packer->out = out + 1;
    packer->at = 0;
}

static inline void pack_literals(Packer *packer, const void *text, uint32_t length) {
    if (length) memcpy(packer->out, text, length);
    packer->out += length;
    packer->at += length;
}

static inline uint8_t *write_length(uint8_t *out, uint32_t rest) {
    for (; rest >= 255; rest -= 255) *out++ = 255;
    *out++ = (uint8_t)rest;
    return out;
}

/* Complete the literals of the open sequence: their length comes before them. */
static inline void close_literals(Packer *packer) {
    uint32_t length = (uint32_t)(packer->out - packer->token - 1);
    *packer->token = (uint8_t)((length < NIBBLE_FULL ? length : NIBBLE_FULL) << 4);
    if (length >= NIBBLE_FULL) {
        uint32_t more = (length - NIBBLE_FULL) / 255 + 1;
        memmove(packer->token + 1 + more, packer->token + 1, length);
        write_length(packer->token + 1, length - NIBBLE_FULL);
        packer->out += more;
    }
}

/* Repeat `length` bytes, MATCH_MIN at least, of the plain text from `place` on. */
static inline void pack_match(Packer *packer, int64_t place, uint32_t length) {
    uint32_t rest = length - MATCH_MIN, offset = (uint32_t)(packer->at - place);
    close_literals(packer);
    *packer->token |= (uint8_t)(rest < NIBBLE_FULL ? rest : NIBBLE_FULL);
    *packer->out++ = (uint8_t)offset;
    *packer->out++ = (uint8_t)(offset >> 8);
    if (rest >= NIBBLE_FULL) packer->out = write_length(packer->out, rest - NIBBLE_FULL);
    packer->token = packer->out++;
    packer->at += length;
}

/* Return how many bytes two texts have in common at their beginning, `most` at most. */
static inline uint32_t common(const uint8_t *one, const uint8_t *other, uint32_t most) {
    uint32_t count = 0;
    for (; count + 8 <= most; count += 8) {
        uint64_t first, second;
        memcpy(&first, one + count, 8);
        memcpy(&second, other + count, 8);
        if (first != second) return count + (uint32_t)(__builtin_ctzll(first ^ second) >> 3);
    }
    while (count < most && one[count] == other[count]) count++;
    return count;
}

#endif
