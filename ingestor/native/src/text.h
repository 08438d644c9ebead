/* Digits -> numbers. Each reader gets `at` and `end`, reads nothing at or behind `end`, and returns
 * where it stopped, or NULL for a text that it does not take. */
#ifndef INGESTOR_TEXT_H
#define INGESTOR_TEXT_H

#include <stdint.h>
#include <string.h>

static const uint64_t POW10[20] = {
    1ull, 10ull, 100ull, 1000ull, 10000ull, 100000ull, 1000000ull, 10000000ull, 100000000ull,
    1000000000ull, 10000000000ull, 100000000000ull, 1000000000000ull, 10000000000000ull,
    100000000000000ull, 1000000000000000ull, 10000000000000000ull, 100000000000000000ull,
    1000000000000000000ull, 10000000000000000000ull};

static inline int is_digit(char c) { return (uint8_t)(c - '0') < 10; }

/* Read the digits at `at`, eight at most, of eight readable bytes; return how many there are.
 *
 * A byte is a digit if its high half is 3, and still is with 6 added. All eight are tested at once;
 * carries only run towards later bytes, which do not count. Then pairs, fours and eights of digits
 * are joined by three multiplications. */
static inline int eight_digits(const char *at, uint64_t *value) {
    uint64_t word, odd;
    memcpy(&word, at, 8);
    odd = ((word & 0xF0F0F0F0F0F0F0F0ull) ^ 0x3030303030303030ull) |
          (((word + 0x0606060606060606ull) & 0xF0F0F0F0F0F0F0F0ull) ^ 0x3030303030303030ull);
    int count = odd ? __builtin_ctzll(odd) >> 3 : 8;
    word -= 0x3030303030303030ull; /* digits stand lowest: no borrow reaches them */
    if (count < 8) word = count ? word << (64 - 8 * count) : 0;
    word = word * 10 + (word >> 8);
    *value = (((word & 0x000000FF000000FFull) * 0x000F424000000064ull) +
              (((word >> 16) & 0x000000FF000000FFull) * 0x0000271000000001ull)) >> 32;
    return count;
}

/* Append a run of digits to *value; return how many, 20 for more than 19 (10^19 fits 64 bits). */
static inline int digit_run(const char *at, const char *end, uint64_t *value) {
    int count = 0;
    while (end - at >= 8) {
        uint64_t part;
        int found = eight_digits(at, &part);
        if (count + found > 19) return 20;
        *value = *value * POW10[found] + part;
        count += found;
        at += found;
        if (found < 8) return count;
    }
    for (; at < end && is_digit(*at); at++) {
        if (++count > 19) return 20;
        *value = *value * 10 + (uint64_t)(*at - '0');
    }
    return count;
}

/* An integer below 2^63, without a leading zero unless it is 0. */
static inline const char *read_integer(const char *at, const char *end, uint64_t *out) {
    uint64_t value = 0;
    int count = digit_run(at, end, &value);
    if (count == 0 || count > 19 || value > INT64_MAX || (*at == '0' && count > 1)) return NULL;
    *out = value;
    return at + count;
}

/* A decimal of 18 digits at most, as an integer in units of 10^-exponent; exponent: 0 to 18.
 * Decimals beyond the exponent must be zeros. */
static inline const char *read_decimal(const char *at, const char *end, int exponent, int64_t *out) {
    uint64_t value = 0;
    int whole = digit_run(at, end, &value), decimals = 0;
    if (whole == 0 || whole > 18 || (*at == '0' && whole > 1)) return NULL;
    at += whole;
    if (at < end && *at == '.') {
        uint64_t fraction = 0;
        at++;
        decimals = digit_run(at, end, &fraction);
        if (decimals == 0 || whole + decimals > 18) return NULL;
        value = value * POW10[decimals] + fraction;
        at += decimals;
    }
    if (decimals <= exponent) {
        if (whole + exponent > 18) return NULL;
        value *= POW10[exponent - decimals];
    } else {
        uint64_t unit = POW10[decimals - exponent];
        if (value % unit) return NULL;
        value /= unit;
    }
    *out = (int64_t)value;
    return at;
}

/* Return how many decimals the number between `at` and `end` has. */
static inline int decimals_in(const char *at, const char *end) {
    const char *point = memchr(at, '.', (size_t)(end - at));
    return point == NULL ? 0 : (int)(end - point - 1);
}

/* The same with exactly `exponent` decimals. */
static inline const char *read_exact(const char *at, const char *end, int exponent, int64_t *out) {
    uint64_t value = 0;
    int whole = digit_run(at, end, &value);
    if (whole == 0 || whole + exponent > 18 || (*at == '0' && whole > 1)) return NULL;
    at += whole;
    if (exponent) {
        if (at >= end || *at++ != '.' || digit_run(at, end, &value) != exponent) return NULL;
        at += exponent;
    }
    *out = (int64_t)value;
    return at;
}

static inline int two_digits(const char *at) {
    return is_digit(at[0]) && is_digit(at[1]) ? (at[0] - '0') * 10 + at[1] - '0' : -1;
}

/* Days from 1970-01-01 to a date of the Gregorian calendar, counted in years that begin in March. */
static inline int64_t days_since_epoch(int year, int month, int day) {
    int64_t from_march = year - (month <= 2), era = from_march / 400, of_era = from_march % 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

/* "2026-08-01T02:53:53.184174Z" as ns since the epoch: years 1970 to 2261, 0 to 9 decimals. */
static inline const char *read_iso(const char *at, const char *end, uint64_t *out) {
    static const uint8_t days_of[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (end - at < 20 || at[4] != '-' || at[7] != '-' || at[10] != 'T' || at[13] != ':' ||
        at[16] != ':')
        return NULL;
    int century = two_digits(at), rest = two_digits(at + 2), month = two_digits(at + 5),
        day = two_digits(at + 8), hour = two_digits(at + 11), minute = two_digits(at + 14),
        second = two_digits(at + 17), year = century * 100 + rest;
    if (century < 0 || rest < 0 || year < 1970 || year > 2261 || month < 1 || month > 12 || day < 1 ||
        hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59)
        return NULL;
    int is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (day > days_of[month - 1] + (month == 2 && is_leap)) return NULL;
    uint64_t seconds = (uint64_t)days_since_epoch(year, month, day) * 86400 +
                       (uint64_t)(hour * 3600 + minute * 60 + second);
    uint64_t fraction = 0;
    int decimals = 0;
    at += 19;
    if (*at == '.') {
        for (at++; at < end && is_digit(*at) && decimals < 9; at++, decimals++)
            fraction = fraction * 10 + (uint64_t)(*at - '0');
        if (decimals == 0) return NULL;
    }
    if (at >= end || *at != 'Z') return NULL;
    *out = seconds * 1000000000ull + fraction * POW10[9 - decimals];
    return at + 1;
}

static inline int hex_digit(char c) {
    return is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A lower-case UUID: 32 hexadecimal digits in groups of 8, 4, 4, 4 and 12. out: high, low. */
static inline const char *read_uuid(const char *at, const char *end, uint64_t out[2]) {
    if (end - at < 36) return NULL;
    uint64_t halves[2] = {0, 0};
    int count = 0;
    for (int index = 0; index < 36; index++) {
        if (index == 8 || index == 13 || index == 18 || index == 23) {
            if (at[index] != '-') return NULL;
            continue;
        }
        int digit = hex_digit(at[index]);
        if (digit < 0) return NULL;
        halves[count >> 4] = halves[count >> 4] << 4 | (uint64_t)digit;
        count++;
    }
    out[0] = halves[0];
    out[1] = halves[1];
    return at + 36;
}

/* Digits or a UUID up to a quote. out: high, low. */
static inline const char *read_id(const char *at, const char *end, uint64_t out[2]) {
    const char *next = read_integer(at, end, &out[1]);
    out[0] = 0;
    return next != NULL && next < end && *next == '"' ? next : read_uuid(at, end, out);
}

/* Skip what needs no second thought inside a JSON string: printable ASCII, no quote, no backslash. */
static inline const char *skip_text(const char *at, const char *end) {
    while (at < end && *at >= 0x20 && *at < 0x7f && *at != '"' && *at != '\\') at++;
    return at;
}

static inline int is_word(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-';
}

/* Skip one word. */
static inline const char *skip_word(const char *at, const char *end) {
    const char *begin = at;
    while (at < end && is_word(*at)) at++;
    return at > begin ? at : NULL;
}

/* Skip a JSON number without exponent: 18 digits at most before its point and after it. */
static inline const char *skip_number(const char *at, const char *end) {
    uint64_t ignored = 0;
    if (at < end && *at == '-') at++;
    int whole = digit_run(at, end, &ignored);
    if (whole == 0 || whole > 18 || (*at == '0' && whole > 1)) return NULL;
    at += whole;
    if (at >= end || *at != '.') return at;
    ignored = 0;
    int decimals = digit_run(++at, end, &ignored);
    return decimals == 0 || decimals > 18 ? NULL : at + decimals;
}

#endif
