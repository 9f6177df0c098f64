// The kernels' code on the host against plain loops in double: no PyTorch, no CUDA, no framework.
//
// Exit status 0 when everything agrees; else one line says what did not.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "arithmetic.h"
#include "topk_gating.h"

namespace {

int failures = 0;

void expect(bool holds, const char* what, const ToolkitGating& g, int path) {
    if (holds) return;
    ++failures;
    std::printf("FAIL %s: E=%d k=%d normalize=%d grouped=%d sigmoid=%d groups=%d path=%d\n", what,
                g.num_experts, g.k, g.normalize, g.grouped, g.sigmoid, g.groups, path);
}

// Larger first, NaN before everything, the lower place where two are equal.
template <class Number>
std::vector<int> first_places(const std::vector<Number>& values, int count) {
    std::vector<int> places(values.size());
    std::iota(places.begin(), places.end(), 0);
    std::stable_sort(places.begin(), places.end(), [&](int a, int b) {
        const bool nan_a = std::isnan(values[a]), nan_b = std::isnan(values[b]);
        return nan_a || nan_b ? nan_a && !nan_b : values[a] > values[b];
    });
    places.resize(count);
    return places;
}

struct Wanted {
    std::vector<int> ids;
    std::vector<double> weights;
};

Wanted plain(const ToolkitGating& g, const std::vector<float>& logits) {
    Wanted wanted;
    wanted.ids = first_places(logits, g.k);
    const double peak = logits[wanted.ids[0]];
    double total = 0;
    for (int e = 0; e < g.num_experts; ++e) {
        const bool chosen = std::count(wanted.ids.begin(), wanted.ids.end(), e) > 0;
        if (chosen || !g.normalize) total += std::exp(logits[e] - peak);
    }
    for (int id : wanted.ids) wanted.weights.push_back(g.scale * std::exp(logits[id] - peak) / total);
    return wanted;
}

Wanted grouped(const ToolkitGating& g, const std::vector<float>& logits,
               const std::vector<float>& bias) {
    const int experts = g.num_experts, size = experts / g.groups;
    double peak = *std::max_element(logits.begin(), logits.end()), mass = 0, total = 1e-20;
    for (float x : logits) mass += std::exp(x - peak);
    std::vector<double> scores(experts);
    std::vector<float> biased(experts), worths;
    for (int e = 0; e < experts; ++e) {
        scores[e] = g.sigmoid ? 1 / (1 + std::exp(-double(logits[e])))
                              : std::exp(logits[e] - peak) / mass;
        if (scores[e] < std::numeric_limits<float>::min()) scores[e] = 0;
        biased[e] = float(scores[e]) + bias[e];
    }
    for (int group = 0; group < g.groups; ++group) {
        std::vector<float> members(biased.begin() + group * size,
                                   biased.begin() + (group + 1) * size);
        float worth = 0;
        for (int place : first_places(members, g.group_top)) worth += members[place];
        worths.push_back(worth);
    }
    const auto kept = first_places(worths, g.top_groups);
    for (int e = 0; g.groups > 1 && e < experts; ++e)
        if (!std::count(kept.begin(), kept.end(), e / size))
            biased[e] = std::numeric_limits<float>::lowest();
    Wanted wanted;
    wanted.ids = first_places(biased, g.k);
    for (int id : wanted.ids) total += scores[id];
    for (int id : wanted.ids)
        wanted.weights.push_back(g.scale * scores[id] / (g.normalize ? total : 1));
    return wanted;
}

bool close(float found, double wanted) {
    if (std::isnan(wanted)) return std::isnan(found);
    const float right = static_cast<float>(wanted);
    return found == right || found == std::nextafterf(right, 1e30f) ||
           found == std::nextafterf(right, -1e30f);
}

void check(const ToolkitGating& g, const std::vector<float>& logits,
           const std::vector<float>& bias) {
    const Wanted wanted = g.grouped ? grouped(g, logits, bias) : plain(g, logits);
    for (int path : {toolkit_gating_path(&g), 2}) {
        std::vector<float> weights(g.k, 12345.0f);
        std::vector<int64_t> ids(g.k, -77);
        const int status = host_gating(&g, TOOLKIT_FLOAT32, logits.data(), bias.data(),
                                       TOOLKIT_FLOAT32, 1, weights.data(), ids.data(), path);
        expect(status == TOOLKIT_OK, "status", g, path);
        for (int i = 0; i < g.k; ++i) {
            expect(ids[i] == wanted.ids[i], "ids", g, path);
            expect(close(weights[i], wanted.weights[i]), "weights", g, path);
        }
    }
}

void check_dispatch(int tokens, int k, int experts, std::mt19937& random) {
    const ToolkitGating g = {experts, k, 1, 1.0f, 1, 1, 1, 1, 0};
    const int slots = tokens * k;
    std::vector<int64_t> ids(slots), tokens_found(slots), rows(slots), offsets(experts + 1);
    std::vector<unsigned char> active(experts);
    for (auto& id : ids) id = random() % experts;
    const int status = host_dispatch(experts, k, ids.data(), tokens, tokens_found.data(),
                                     rows.data(), offsets.data(), active.data());
    expect(status == TOOLKIT_OK, "status of dispatch", g, -1);
    std::vector<int> slot_of_row(slots);
    std::iota(slot_of_row.begin(), slot_of_row.end(), 0);
    std::stable_sort(slot_of_row.begin(), slot_of_row.end(),
                     [&](int a, int b) { return ids[a] < ids[b]; });
    for (int row = 0; row < slots; ++row) {
        expect(rows[slot_of_row[row]] == row, "row_of_slot", g, -1);
        expect(tokens_found[row] == slot_of_row[row] / k, "token_of_row", g, -1);
    }
    for (int e = 0; e <= experts; ++e) {
        const auto before = std::count_if(ids.begin(), ids.end(), [&](int64_t id) { return id < e; });
        expect(offsets[e] == before, "offsets", g, -1);
        if (e < experts) expect(active[e] == (std::count(ids.begin(), ids.end(), e) > 0), "active", g, -1);
    }
}

// exp to 2^-34 of itself, over all that float32 can hold of it.
void check_exponential(std::mt19937& random) {
    std::uniform_real_distribution<float> below(0.0f, 168.0f), ulps(-0.5f, 0.5f);
    for (int i = 0; i < 200000; ++i) {
        const float x = -below(random), lo = x * 1.19e-7f * ulps(random);
        const toolkit::Exponential e = toolkit::exponential({x, lo});
        const long double found = static_cast<long double>(e.mantissa.hi) + e.mantissa.lo;
        const long double right = std::exp(static_cast<long double>(x) + lo);
        if (std::fabs(std::ldexp(found, e.exponent) / right - 1) < 0x1p-34L) continue;
        ++failures;
        std::printf("FAIL exponential of %.9g + %.9g\n", x, lo);
        return;
    }
}

}  // namespace

int main() {
    std::mt19937 random(0);
    std::normal_distribution<float> normal;
    const float odd[] = {0.0f, -0.0f, 1.0f, -INFINITY, 60.0f, 60.0f};
    for (int experts : {1, 2, 5, 8, 31, 64, 100, 128, 255, 256, 300, 1024})
        for (int k : {1, 2, 6, 8, 32}) {
            if (k > experts) continue;
            for (int round = 0; round < 8; ++round) {
                std::vector<float> logits(experts), bias(experts);
                for (auto& x : logits) x = round % 2 ? odd[random() % 6] : normal(random) * 4;
                for (auto& x : bias) x = normal(random) / 8;
                const int normalize = round / 2 % 2, sigmoid = round / 4;
                check({experts, k, normalize, 1.5f, 1, 1, 1, 1, 0}, logits, bias);
                check({experts, k, normalize, 1.5f, sigmoid, 1, 1, 1, 1}, logits, bias);
                if (experts % 8 == 0 && k <= experts / 2)
                    check({experts, k, normalize, 1.5f, sigmoid, 4, 2, 2, 1}, logits, bias);
            }
        }
    const ToolkitGating g = {4, 2, 1, 1.0f, 1, 1, 1, 1, 0};
    check(g, {NAN, 1.0f, NAN, 2.0f}, {0, 0, 0, 0});
    check_exponential(random);
    for (int tokens : {0, 1, 33, 2000}) check_dispatch(tokens, 3, 7, random);
    std::printf("%s\n", failures ? "FAILED" : "ok");
    return failures ? 1 : 0;
}
