// The plugins as TensorRT calls them, on the host: creators, shapes, formats, serialisation, and
// enqueue with the kernels' host versions. Needs TensorRT's headers, no library and no GPU.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "plugin.h"

using namespace nvinfer1;

namespace {

int failures = 0;

void expect(bool holds, char const* what) {
    if (holds) return;
    ++failures;
    std::printf("FAIL %s\n", what);
}

struct Said final : ILogger {
    int errors = 0;
    void log(Severity, AsciiChar const*) noexcept override { ++errors; }
} said;

// A size that is a number.
struct Number final : IDimensionExpr, apiv::VDimensionExpr {
    explicit Number(int64_t number) : value(number) { mImpl = this; }
    bool isConstant() const override { return true; }
    int64_t getConstantValue() const override { return value; }
    bool isSizeTensor() const override { return false; }
    int64_t value;
};

struct Builder final : IExprBuilder, apiv::VExprBuilder {
    Builder() { mImpl = this; }
    IDimensionExpr const* constant(int64_t value) override {
        made.push_back(std::make_unique<Number>(value));
        return made.back().get();
    }
    IDimensionExpr const* operation(DimensionOperation op, IDimensionExpr const& a,
                                    IDimensionExpr const& b) override {
        expect(op == DimensionOperation::kPROD, "only products of sizes");
        return constant(static_cast<Number const&>(a).value * static_cast<Number const&>(b).value);
    }
    IDimensionExpr const* declareSizeTensor(int32_t, IDimensionExpr const&,
                                            IDimensionExpr const&) override {
        return nullptr;
    }
    std::vector<std::unique_ptr<Number>> made;
};

IPluginCreatorV3One* creator(char const* name) {
    for (int i = 0; i < toolkit::kCreators; ++i) {
        auto* each = static_cast<IPluginCreatorV3One*>(toolkit::creators()[i]);
        if (std::strcmp(each->getPluginName(), name) == 0) return each;
    }
    return nullptr;
}

DynamicPluginTensorDesc tensor(DataType type, std::vector<int64_t> sizes) {
    DynamicPluginTensorDesc made{};
    made.desc.type = type;
    made.desc.format = TensorFormat::kLINEAR;
    made.desc.dims.nbDims = static_cast<int32_t>(sizes.size());
    for (size_t i = 0; i < sizes.size(); ++i) made.desc.dims.d[i] = sizes[i];
    made.min = made.max = made.opt = made.desc.dims;
    return made;
}

// A plugin built from fields, serialised, and made again from what it serialised.
IPluginV3* built(char const* name, std::vector<PluginField> fields) {
    PluginFieldCollection given{static_cast<int32_t>(fields.size()), fields.data()};
    auto* makes = creator(name);
    std::unique_ptr<IPluginV3> first(makes->createPlugin("a", &given, TensorRTPhase::kBUILD));
    if (!first) return nullptr;
    auto* runtime = static_cast<IPluginV3OneRuntime*>(
        first->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
    auto const* written = runtime->getFieldsToSerialize();
    auto const* names = makes->getFieldNames();
    expect(written->nbFields == names->nbFields, "every attribute is serialised");
    for (int i = 0; i < names->nbFields && i < written->nbFields; ++i)
        expect(std::strcmp(written->fields[i].name, names->fields[i].name) == 0, "field names");
    return makes->createPlugin("b", written, TensorRTPhase::kRUNTIME);
}

void check(IPluginV3* plugin, std::vector<DynamicPluginTensorDesc> tensors,
           std::vector<std::vector<int64_t>> shapes) {
    auto* build =
        static_cast<IPluginV3OneBuild*>(plugin->getCapabilityInterface(PluginCapabilityType::kBUILD));
    auto const inputs = static_cast<int32_t>(tensors.size());
    auto const outputs = build->getNbOutputs();
    expect(outputs == static_cast<int32_t>(shapes.size()), "number of outputs");
    std::vector<DataType> types(outputs), given;
    for (auto const& each : tensors) given.push_back(each.desc.type);
    expect(build->getOutputDataTypes(types.data(), outputs, given.data(), inputs) == 0, "types");
    Builder builder;
    std::vector<DimsExprs> in(inputs), out(outputs);
    for (int i = 0; i < inputs; ++i) {
        in[i].nbDims = tensors[i].desc.dims.nbDims;
        for (int d = 0; d < in[i].nbDims; ++d)
            in[i].d[d] = builder.constant(tensors[i].desc.dims.d[d]);
    }
    expect(build->getOutputShapes(in.data(), inputs, nullptr, 0, out.data(), outputs, builder) == 0,
           "shapes");
    for (int i = 0; i < outputs; ++i) {
        std::vector<int64_t> found;
        for (int d = 0; d < out[i].nbDims; ++d) found.push_back(out[i].d[d]->getConstantValue());
        expect(found == shapes[i], "shape of an output");
        tensors.push_back(tensor(types[i], shapes[i]));
    }
    for (int i = 0; i < inputs + outputs; ++i) {
        expect(build->supportsFormatCombination(i, tensors.data(), inputs, outputs), "format");
        auto other = tensors;
        other[i].desc.type = DataType::kINT8;
        expect(!build->supportsFormatCombination(i, other.data(), inputs, outputs), "no int8");
        other = tensors;
        other[i].desc.format = TensorFormat::kCHW32;
        expect(!build->supportsFormatCombination(i, other.data(), inputs, outputs), "linear only");
    }
    expect(build->configurePlugin(tensors.data(), inputs, tensors.data() + inputs, outputs) == 0,
           "configure");
}

void gates_and_dispatches() {
    int experts = 4, k = 2, normalize = 1;
    float scale = 2.0f;
    std::unique_ptr<IPluginV3> plugin(
        built("TopKGating", {{"num_experts", &experts, PluginFieldType::kINT32, 1},
                             {"k", &k, PluginFieldType::kINT32, 1},
                             {"normalize", &normalize, PluginFieldType::kINT32, 1},
                             {"scale", &scale, PluginFieldType::kFLOAT32, 1}}));
    expect(plugin != nullptr, "TopKGating is made");
    if (!plugin) return;
    auto logits = tensor(DataType::kFLOAT, {3, 4});
    check(plugin.get(), {logits}, {{3, 2}, {3, 2}, {6}, {6}, {5}, {4}});
    float const x[] = {0, 0, 1, 0, NAN, 5, 5, 0, 2, 2, 2, 2};
    float weights[6];
    int64_t ids[6], token_of_row[6], row_of_slot[6], offsets[5];
    unsigned char active[4];
    void const* in[] = {x};
    void* out[] = {weights, ids, token_of_row, row_of_slot, offsets, active};
    std::unique_ptr<IPluginV3> attached(
        static_cast<IPluginV3OneRuntime*>(
            plugin->getCapabilityInterface(PluginCapabilityType::kRUNTIME))
            ->attachToContext(nullptr));
    auto* runtime = static_cast<IPluginV3OneRuntime*>(
        attached->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
    expect(runtime->onShapeChange(&logits.desc, 1, nullptr, 6) == 0, "shape");
    expect(runtime->enqueue(&logits.desc, nullptr, in, out, nullptr, nullptr) == 0, "enqueue");
    int64_t const wanted[] = {2, 0, 0, 1, 0, 1}, rows[] = {0, 1, 2, 0, 1, 2};
    expect(std::memcmp(ids, wanted, sizeof ids) == 0, "ids");
    expect(weights[4] == 1.0f && weights[5] == 1.0f && std::isnan(weights[2]), "weights");
    expect(offsets[4] == 6 && offsets[1] == 3 && active[0] && !active[3], "offsets");
    expect(std::memcmp(token_of_row, rows, 3 * sizeof *rows) == 0, "token_of_row");
    auto wide = tensor(DataType::kFLOAT, {3, 5}).desc;
    expect(runtime->onShapeChange(&wide, 1, nullptr, 6) != 0, "five columns for four experts");
}

void the_others_are_made() {
    int experts = 256, k = 8, groups = 8, kept = 4, top = 2;
    std::unique_ptr<IPluginV3> grouped(
        built("GroupedTopKGating", {{"num_experts", &experts, PluginFieldType::kINT32, 1},
                                    {"k", &k, PluginFieldType::kINT32, 1},
                                    {"groups", &groups, PluginFieldType::kINT32, 1},
                                    {"top_groups", &kept, PluginFieldType::kINT32, 1},
                                    {"group_top", &top, PluginFieldType::kINT32, 1}}));
    expect(grouped != nullptr, "GroupedTopKGating is made of fields without their defaults");
    if (grouped)
        check(grouped.get(), {tensor(DataType::kBF16, {7, 256}), tensor(DataType::kFLOAT, {256})},
              {{7, 8}, {7, 8}, {56}, {56}, {257}, {256}});
    std::unique_ptr<IPluginV3> dispatch(
        built("ExpertDispatch", {{"num_experts", &experts, PluginFieldType::kINT32, 1}}));
    expect(dispatch != nullptr, "ExpertDispatch is made");
    if (dispatch)
        check(dispatch.get(), {tensor(DataType::kINT64, {7, 3})}, {{21}, {21}, {257}, {256}});
}

void bad_attributes_are_refused() {
    int experts = 2048, k = 2, none = 0;
    int const before = said.errors;
    expect(!built("TopKGating", {{"num_experts", &experts, PluginFieldType::kINT32, 1},
                                 {"k", &k, PluginFieldType::kINT32, 1}}), "2048 experts");
    expect(!built("TopKGating", {{"num_experts", &k, PluginFieldType::kINT32, 1}}), "no k");
    expect(!built("ExpertDispatch", {{"num_experts", &none, PluginFieldType::kINT32, 1}}), "none");
    expect(!built("TopKGating", {{"num_experts", nullptr, PluginFieldType::kINT32, 1}}), "no data");
    expect(!creator("TopKGating")->createPlugin("x", nullptr, TensorRTPhase::kBUILD), "no fields");
    expect(said.errors == before + 5, "each refusal is logged");
}

}  // namespace

namespace toolkit {
ILogger* logger() noexcept { return &said; }
}  // namespace toolkit

// The kernels' host versions in place of their launches.

extern "C" int toolkit_gating(const ToolkitGating* gating, int type, const void* logits,
                              const void* bias, int bias_type, int64_t tokens, float* weights,
                              int64_t* ids, ToolkitStream) {
    return host_gating(gating, type, logits, bias, bias_type, tokens, weights, ids, -1);
}

extern "C" size_t toolkit_dispatch_workspace(int, int64_t) { return 0; }

extern "C" int toolkit_dispatch(int experts, int k, const int64_t* ids, int64_t tokens,
                                int64_t* token_of_row, int64_t* row_of_slot, int64_t* offsets,
                                unsigned char* active, void*, ToolkitStream) {
    return host_dispatch(experts, k, ids, tokens, token_of_row, row_of_slot, offsets, active);
}

int main() {
    gates_and_dispatches();
    the_others_are_made();
    bad_attributes_are_refused();
    std::printf("%s\n", failures ? "FAILED" : "ok");
    return failures ? 1 : 0;
}
