/* Numbers -> digits. Each writer puts its text at `out`, which has room for VALUE_MAX bytes, and
 * returns its length. */
#ifndef INGESTOR_NUMBERS_H
#define INGESTOR_NUMBERS_H

#include <stdint.h>
#include <string.h>

#include "text.h"

static const char DIGIT_PAIRS[] =
    "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
    "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
    "8081828384858687888990919293949596979899";

static inline uint32_t write_integer(uint64_t value, uint8_t *out) {
    uint8_t digits[20];
    uint32_t at = 20;
    for (; value >= 100; value /= 100) memcpy(digits + (at -= 2), DIGIT_PAIRS + value % 100 * 2, 2);
    if (value >= 10)
        memcpy(digits + (at -= 2), DIGIT_PAIRS + value * 2, 2);
    else
        digits[--at] = (uint8_t)('0' + value);
    memcpy(out, digits + at, 20 - at);
    return 20 - at;
}

/* value x 10^-exponent with exactly `exponent` decimals, 0 to 18. */
static inline uint32_t write_decimal(uint64_t value, int exponent, uint8_t *out) {
    if (exponent == 0) return write_integer(value, out);
    uint32_t length = write_integer(value / POW10[exponent], out);
    uint64_t fraction = value % POW10[exponent];
    out[length++] = '.';
    for (int place = exponent - 1; place >= 0; place--, fraction /= 10)
        out[length + (uint32_t)place] = (uint8_t)('0' + fraction % 10);
    return length + (uint32_t)exponent;
}

static inline uint32_t write_uuid(uint64_t high, uint64_t low, uint8_t *out) {
    uint32_t length = 0;
    for (int digit = 0; digit < 32; digit++) {
        if (digit == 8 || digit == 12 || digit == 16 || digit == 20) out[length++] = '-';
        uint64_t half = digit < 16 ? high : low;
        out[length++] = (uint8_t)"0123456789abcdef"[half >> (60 - 4 * (digit & 15)) & 15];
    }
    return length;
}

/* A number of a Kafka record: zigzag, then seven bits a byte. */
static inline uint32_t write_varint(int64_t value, uint8_t *out) {
    uint64_t rest = ((uint64_t)value << 1) ^ (uint64_t)(value >> 63);
    uint32_t length = 0;
    for (; rest >= 128; rest >>= 7) out[length++] = (uint8_t)(rest | 128);
    out[length++] = (uint8_t)rest;
    return length;
}

#endif
