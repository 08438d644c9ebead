/* The checksum of a Kafka batch: CRC32C (Castagnoli), with the processor's instruction where it has
 * one. tables: uint32[8][256], which Python makes, for the others. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static uint32_t by_tables(uint32_t crc, const uint8_t *data, size_t size, const uint32_t *tables) {
    for (; size >= 8; data += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        word ^= crc;
        crc = 0;
        for (unsigned byte = 0; byte < 8; byte++)
            crc ^= tables[256 * (7 - byte) + (word >> (8 * byte) & 255)];
    }
    for (; size; data++, size--) crc = tables[(crc ^ *data) & 255] ^ crc >> 8;
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc, const uint8_t *data, size_t size) {
    uint64_t wide = crc, word;
    for (; size >= 8; data += 8, size -= 8) {
        memcpy(&word, data, 8);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    crc = (uint32_t)wide;
    for (; size; data++, size--) crc = __builtin_ia32_crc32qi(crc, *data);
    return crc;
}
#endif

/* Return the checksum of `size` bytes. portable: 1 for the tables in any case. */
uint32_t native_crc32c(const uint8_t *data, uint64_t size, const uint32_t *tables, int portable) {
#if defined(__x86_64__)
    if (!portable && __builtin_cpu_supports("sse4.2")) return ~by_instruction(~0u, data, size);
#endif
    (void)portable;
    return ~by_tables(~0u, data, size, tables);
}
