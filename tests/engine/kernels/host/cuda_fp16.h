// Half precision for the host: the bits and the two conversions, to nearest even as on the device.
#pragma once
#include <cstdint>
#include <cstring>

struct __half {
    uint16_t bits;
};

inline float __half2float(__half half) {
    uint32_t sign = (uint32_t)(half.bits & 0x8000u) << 16, exponent = half.bits >> 10 & 31u, rest = half.bits & 1023u;
    if (exponent == 0) {
        float value = (float)rest / 16777216.0f;  // 2^-24, the smallest step
        return sign ? -value : value;
    }
    uint32_t bits = sign | (exponent == 31 ? 255u : exponent + 112u) << 23 | rest << 13;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

inline __half __float2half_rn(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    uint32_t sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) return {(uint16_t)(sign | 0x7e00u)};
    if (size >= 0x477ff000u) return {(uint16_t)(sign | 0x7c00u)};
    if (size < 0x38800000u) {  // below 2^-14 steps are of one size
        float magnitude;
        memcpy(&magnitude, &size, 4);
        float steps = magnitude * 16777216.0f, whole = (float)(uint32_t)steps, over = steps - whole;
        uint32_t count = (uint32_t)whole;
        if (over > 0.5f || (over == 0.5f && (count & 1u))) ++count;
        return {(uint16_t)(sign | count)};
    }
    uint32_t rounded = size + 0xfffu + (size >> 13 & 1u);
    return {(uint16_t)(sign | ((rounded >> 13) - (112u << 10)))};
}
