#include "http.hpp"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>
#include <system_error>

#include "failure.hpp"

namespace sample {
namespace {

constexpr long timeout_seconds = 60;
constexpr std::size_t most_header_bytes = 1 << 16;

std::string reason() { return std::generic_category().message(errno); }

std::string lower(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(), [](unsigned char each) { return std::tolower(each); });
    return text;
}

std::string stripped(const std::string& text) {
    const std::size_t first = text.find_first_not_of(" \t");
    if (first == std::string::npos) return "";
    return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// The number a header holds; throws Failure (failed) where it holds none.
std::size_t length_in(const std::string& text) {
    std::size_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) {
        throw Failure(Exit::failed, "the server's reply has the length '" + text + "'");
    }
    return value;
}

// "HTTP/1.1 200 OK", and then a header a line.
Reply read_head(const std::string& text) {
    const std::size_t line = text.find("\r\n");
    const std::string first = text.substr(0, line);
    Reply reply{0, {}, {}};
    const auto space = first.find(' ');
    if (first.rfind("HTTP/1.", 0) != 0 || space == std::string::npos ||
        std::from_chars(first.data() + space + 1, first.data() + first.size(), reply.status).ec != std::errc()) {
        throw Failure(Exit::failed, "what answers there is no HTTP server");
    }
    for (std::size_t at = line + 2; at < text.size();) {
        const std::size_t end = std::min(text.find("\r\n", at), text.size());
        const std::string header = text.substr(at, end - at);
        const std::size_t colon = header.find(':');
        if (colon != std::string::npos) {
            reply.headers[lower(header.substr(0, colon))] = stripped(header.substr(colon + 1));
        }
        at = end + 2;
    }
    return reply;
}

}  // namespace

Connection::Connection(const std::string& address) : address_(address) {
    const std::size_t colon = address.rfind(':');
    if (colon == std::string::npos || colon == 0 || colon + 1 == address.size()) {
        throw Failure(Exit::unusable, "the server is '" + address + "', wanted HOST:PORT");
    }
    addrinfo wanted{};
    wanted.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    const int code = getaddrinfo(address.substr(0, colon).c_str(), address.substr(colon + 1).c_str(), &wanted, &found);
    if (code != 0) throw Failure(Exit::failed, address + " is no address: " + gai_strerror(code));
    const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> places(found, &freeaddrinfo);
    std::string why = "no address";
    for (const addrinfo* place = found; place != nullptr && socket_ < 0; place = place->ai_next) {
        socket_ = socket(place->ai_family, place->ai_socktype | SOCK_CLOEXEC, place->ai_protocol);
        if (socket_ < 0 || connect(socket_, place->ai_addr, place->ai_addrlen) == 0) continue;
        why = reason();
        close(socket_);
        socket_ = -1;
    }
    if (socket_ < 0) throw Failure(Exit::failed, "no server answers at " + address + ": " + why);
    const int on = 1;
    setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // a request is not held back for more
    const timeval limit{timeout_seconds, 0};
    setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

Connection::~Connection() { close(socket_); }

void Connection::send_all(const std::byte* data, std::size_t size) {
    while (size > 0) {
        const ssize_t sent = send(socket_, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0) throw Failure(Exit::failed, address_ + " takes no more: " + reason());
        data += sent;
        size -= static_cast<std::size_t>(sent);
    }
}

std::size_t Connection::receive(std::byte* data, std::size_t size) {
    while (true) {
        const ssize_t got = recv(socket_, data, size, 0);
        if (got > 0) return static_cast<std::size_t>(got);
        if (got < 0 && errno == EINTR) continue;
        throw Failure(Exit::failed, address_ + " gave no answer: " + (got == 0 ? "it closed the connection" : reason()));
    }
}

Reply Connection::post(const std::string& path, const std::map<std::string, std::string>& headers,
                       const std::vector<std::byte>& body) {
    std::string head = "POST " + path + " HTTP/1.1\r\nHost: " + address_ + "\r\n";
    for (const auto& [name, value] : headers) head += name + ": " + value + "\r\n";
    head += "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n";
    send_all(reinterpret_cast<const std::byte*>(head.data()), head.size());
    send_all(body.data(), body.size());

    std::array<std::byte, 1 << 14> block;
    std::string text;
    std::size_t end = std::string::npos;
    while (end == std::string::npos) {
        if (text.size() > most_header_bytes) throw Failure(Exit::failed, address_ + " sends endless headers");
        const std::size_t got = receive(block.data(), block.size());
        text.append(reinterpret_cast<const char*>(block.data()), got);
        end = text.find("\r\n\r\n");
    }
    Reply reply = read_head(text.substr(0, end));
    const auto length = reply.headers.find("content-length");
    if (length == reply.headers.end()) {
        throw Failure(Exit::failed, address_ + " does not say how long its reply is, which is not read here");
    }
    reply.body.resize(length_in(length->second));
    const std::size_t early = std::min(text.size() - end - 4, reply.body.size());
    if (early > 0) std::memcpy(reply.body.data(), text.data() + end + 4, early);
    for (std::size_t at = early; at < reply.body.size();) {
        at += receive(reply.body.data() + at, reply.body.size() - at);
    }
    return reply;
}

}  // namespace sample
