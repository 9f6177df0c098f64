// The kernels as TensorRT plugins, for TensorRT 10.8 to 11.
//
// Nothing here throws: TensorRT calls across a library boundary, and an exception there ends the
// process. Errors are logged and given back as TensorRT wants them, a number or a null pointer.
#include "plugin.h"

#include <cstdio>
#include <cstring>
#include <new>

namespace toolkit {
namespace {

using nvinfer1::DataType;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginFieldType;
using nvinfer1::PluginTensorDesc;

constexpr char const* kNamespace = "toolkit";
constexpr char const* kVersion = "1";
constexpr int kMostFields = 8;
constexpr int kFailure = 1;

void complain(char const* plugin, char const* what) noexcept {
    nvinfer1::ILogger* to = logger();
    if (!to) return;
    char text[256];
    std::snprintf(text, sizeof text, "toolkit::%s: %s", plugin, what);
    to->log(nvinfer1::ILogger::Severity::kERROR, text);
}

char const* name_of(Kind kind) noexcept {
    switch (kind) {
        case Kind::kPlain: return "TopKGating";
        case Kind::kGrouped: return "GroupedTopKGating";
        default: return "ExpertDispatch";
    }
}

ToolkitGating defaults(Kind kind) noexcept {
    return {0, kind == Kind::kDispatch ? 1 : 0, 1, 1.0f, 1, 1, 1, 1, kind == Kind::kGrouped};
}

// Names and places of the attributes of a kind, in the contract's order.
struct Attributes {
    PluginField fields[kMostFields];
    PluginFieldCollection collection;

    Attributes(Kind kind, ToolkitGating const* values) noexcept {
        int count = 0;
        auto add = [&](char const* name, void const* data, PluginFieldType type) {
            fields[count++] = PluginField(name, data, type, 1);
        };
        auto whole = [&](char const* name, int const* data) {
            add(name, data, PluginFieldType::kINT32);
        };
        whole("num_experts", values ? &values->num_experts : nullptr);
        if (kind != Kind::kDispatch) {
            whole("k", values ? &values->k : nullptr);
            whole("normalize", values ? &values->normalize : nullptr);
            add("scale", values ? &values->scale : nullptr, PluginFieldType::kFLOAT32);
        }
        if (kind == Kind::kGrouped) {
            whole("sigmoid", values ? &values->sigmoid : nullptr);
            whole("groups", values ? &values->groups : nullptr);
            whole("top_groups", values ? &values->top_groups : nullptr);
            whole("group_top", values ? &values->group_top : nullptr);
        }
        collection.nbFields = count;
        collection.fields = fields;
    }
};

// One number of a field, whichever width it came in.
bool read_field(PluginField const& field, int* whole, float* real) noexcept {
    if (!field.data || field.length < 1) return false;
    if (field.type == PluginFieldType::kINT32) {
        int value;
        std::memcpy(&value, field.data, sizeof value);
        if (whole) *whole = value;
        if (real) *real = static_cast<float>(value);
    } else if (field.type == PluginFieldType::kINT64 && whole) {
        int64_t value;
        std::memcpy(&value, field.data, sizeof value);
        *whole = static_cast<int>(value);
    } else if (field.type == PluginFieldType::kFLOAT32 && real) {
        std::memcpy(real, field.data, sizeof *real);
    } else {
        return false;
    }
    return true;
}

bool read_attributes(PluginFieldCollection const* from, ToolkitGating& to) noexcept {
    struct Place {
        char const* name;
        int* whole;
    };
    Place const places[] = {{"num_experts", &to.num_experts}, {"k", &to.k},
                            {"normalize", &to.normalize},     {"sigmoid", &to.sigmoid},
                            {"groups", &to.groups},           {"top_groups", &to.top_groups},
                            {"group_top", &to.group_top}};
    for (int i = 0; from && i < from->nbFields; ++i) {
        PluginField const& field = from->fields[i];
        if (!field.name) return false;
        if (std::strcmp(field.name, "scale") == 0 && !read_field(field, nullptr, &to.scale))
            return false;
        for (Place const& place : places)
            if (std::strcmp(field.name, place.name) == 0 && !read_field(field, place.whole, nullptr))
                return false;
    }
    return toolkit_gating_path(&to) >= 0;
}

int type_of(DataType type) noexcept {
    switch (type) {
        case DataType::kFLOAT: return TOOLKIT_FLOAT32;
        case DataType::kHALF: return TOOLKIT_FLOAT16;
        case DataType::kBF16: return TOOLKIT_BFLOAT16;
        default: return -1;
    }
}

class Plugin final : public nvinfer1::IPluginV3,
                     public nvinfer1::IPluginV3OneCore,
                     public nvinfer1::IPluginV3OneBuild,
                     public nvinfer1::IPluginV3OneRuntime {
  public:
    Plugin(Kind kind, ToolkitGating const& gating) noexcept
        : kind_(kind), gating_(gating), serialized_(kind, &gating_) {}

    // IPluginV3

    nvinfer1::IPluginCapability* getCapabilityInterface(
        nvinfer1::PluginCapabilityType type) noexcept override {
        switch (type) {
            case nvinfer1::PluginCapabilityType::kCORE:
                return static_cast<nvinfer1::IPluginV3OneCore*>(this);
            case nvinfer1::PluginCapabilityType::kBUILD:
                return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
            case nvinfer1::PluginCapabilityType::kRUNTIME:
                return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
        }
        return nullptr;
    }

    nvinfer1::IPluginV3* clone() noexcept override {
        return new (std::nothrow) Plugin(kind_, gating_);
    }

    // IPluginV3OneCore

    char const* getPluginName() const noexcept override { return name_of(kind_); }
    char const* getPluginVersion() const noexcept override { return kVersion; }
    char const* getPluginNamespace() const noexcept override { return kNamespace; }

    // IPluginV3OneBuild

    int32_t getNbOutputs() const noexcept override { return kind_ == Kind::kDispatch ? 4 : 6; }

    int32_t configurePlugin(DynamicPluginTensorDesc const* in, int32_t inputs,
                            DynamicPluginTensorDesc const*, int32_t outputs) noexcept override {
        if (inputs != inputs_() || outputs != getNbOutputs()) return failed("wrong number of tensors");
        return check_width(in[0].desc.dims);
    }

    int32_t getOutputDataTypes(DataType* types, int32_t outputs, DataType const*,
                               int32_t) const noexcept override {
        if (outputs != getNbOutputs()) return kFailure;
        for (int i = 0; i < outputs; ++i) types[i] = output_type(i);
        return 0;
    }

    int32_t getOutputShapes(DimsExprs const* in, int32_t inputs, DimsExprs const*, int32_t,
                            DimsExprs* out, int32_t outputs,
                            nvinfer1::IExprBuilder& builder) noexcept override {
        if (inputs != inputs_() || outputs != getNbOutputs() || in[0].nbDims != 2)
            return failed("wanted a matrix of logits or ids");
        auto const* tokens = in[0].d[0];
        auto const* choices =
            kind_ == Kind::kDispatch ? in[0].d[1] : builder.constant(gating_.k);
        int next = 0;
        if (kind_ != Kind::kDispatch)
            for (; next < 2; ++next) {
                out[next].nbDims = 2;
                out[next].d[0] = tokens;
                out[next].d[1] = choices;
            }
        auto const* slots =
            builder.operation(nvinfer1::DimensionOperation::kPROD, *tokens, *choices);
        nvinfer1::IDimensionExpr const* rest[] = {slots, slots,
                                                  builder.constant(gating_.num_experts + 1),
                                                  builder.constant(gating_.num_experts)};
        for (auto const* size : rest) {
            out[next].nbDims = 1;
            out[next++].d[0] = size;
        }
        return 0;
    }

    bool supportsFormatCombination(int32_t place, DynamicPluginTensorDesc const* tensors,
                                   int32_t inputs, int32_t) noexcept override {
        PluginTensorDesc const& tensor = tensors[place].desc;
        if (tensor.format != nvinfer1::TensorFormat::kLINEAR) return false;
        if (place >= inputs) return tensor.type == output_type(place - inputs);
        return kind_ == Kind::kDispatch ? tensor.type == DataType::kINT64
                                        : type_of(tensor.type) >= 0;
    }

    size_t getWorkspaceSize(DynamicPluginTensorDesc const* in, int32_t,
                            DynamicPluginTensorDesc const*, int32_t) const noexcept override {
        // What is needed grows with the number of slots.
        nvinfer1::Dims const& most = in[0].max;
        int64_t const choices = kind_ == Kind::kDispatch ? most.d[1] : gating_.k;
        return toolkit_dispatch_workspace(gating_.num_experts, most.d[0] * choices);
    }

    // IPluginV3OneRuntime

    int32_t onShapeChange(PluginTensorDesc const* in, int32_t, PluginTensorDesc const*,
                          int32_t) noexcept override {
        return check_width(in[0].dims);
    }

    int32_t enqueue(PluginTensorDesc const* in, PluginTensorDesc const*, void const* const* inputs,
                    void* const* outputs, void* workspace, cudaStream_t stream) noexcept override {
        int64_t const tokens = in[0].dims.d[0];
        int k = gating_.k;
        void const* ids = inputs[0];
        void* const* rest = outputs;
        if (kind_ == Kind::kDispatch) {
            k = static_cast<int>(in[0].dims.d[1]);
        } else {
            bool const biased = kind_ == Kind::kGrouped;
            int const status = toolkit_gating(
                &gating_, type_of(in[0].type), inputs[0], biased ? inputs[1] : nullptr,
                biased ? type_of(in[1].type) : 0, tokens, static_cast<float*>(outputs[0]),
                static_cast<int64_t*>(outputs[1]), stream);
            if (status != TOOLKIT_OK) return failed("gating could not be launched");
            ids = outputs[1];
            rest = outputs + 2;
        }
        int const status = toolkit_dispatch(
            gating_.num_experts, k, static_cast<int64_t const*>(ids), tokens,
            static_cast<int64_t*>(rest[0]), static_cast<int64_t*>(rest[1]),
            static_cast<int64_t*>(rest[2]), static_cast<unsigned char*>(rest[3]), workspace, stream);
        return status == TOOLKIT_OK ? 0 : failed("dispatch could not be launched");
    }

    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override {
        return clone();
    }

    PluginFieldCollection const* getFieldsToSerialize() noexcept override {
        return &serialized_.collection;
    }

  private:
    int inputs_() const noexcept { return kind_ == Kind::kGrouped ? 2 : 1; }

    DataType output_type(int output) const noexcept {
        if (output == getNbOutputs() - 1) return DataType::kBOOL;
        return kind_ != Kind::kDispatch && output == 0 ? DataType::kFLOAT : DataType::kINT64;
    }

    // Logits have a column for each expert.
    int32_t check_width(nvinfer1::Dims const& dims) const noexcept {
        if (dims.nbDims != 2) return failed("wanted a matrix of logits or ids");
        if (kind_ == Kind::kDispatch || dims.d[1] < 0 || dims.d[1] == gating_.num_experts) return 0;
        return failed("logits have another number of columns than num_experts");
    }

    int32_t failed(char const* what) const noexcept {
        complain(name_of(kind_), what);
        return kFailure;
    }

    Kind kind_;
    ToolkitGating gating_;
    Attributes serialized_;  // points into gating_
};

class Creator final : public nvinfer1::IPluginCreatorV3One {
  public:
    explicit Creator(Kind kind) noexcept : kind_(kind), fields_(kind, nullptr) {}

    nvinfer1::IPluginV3* createPlugin(nvinfer1::AsciiChar const*, PluginFieldCollection const* from,
                                      nvinfer1::TensorRTPhase) noexcept override {
        ToolkitGating gating = defaults(kind_);
        if (!read_attributes(from, gating)) {
            complain(name_of(kind_), "its attributes are missing or out of range");
            return nullptr;
        }
        return new (std::nothrow) Plugin(kind_, gating);
    }

    PluginFieldCollection const* getFieldNames() noexcept override { return &fields_.collection; }
    nvinfer1::AsciiChar const* getPluginName() const noexcept override { return name_of(kind_); }
    nvinfer1::AsciiChar const* getPluginVersion() const noexcept override { return kVersion; }
    nvinfer1::AsciiChar const* getPluginNamespace() const noexcept override { return kNamespace; }

  private:
    Kind kind_;
    Attributes fields_;
};

}  // namespace

nvinfer1::IPluginCreatorInterface* const* creators() noexcept {
    static Creator plain(Kind::kPlain), grouped(Kind::kGrouped), dispatch(Kind::kDispatch);
    static nvinfer1::IPluginCreatorInterface* const all[kCreators] = {&plain, &grouped, &dispatch};
    return all;
}

}  // namespace toolkit
