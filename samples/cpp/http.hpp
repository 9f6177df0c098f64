// One connection to an HTTP server, for one request after another. Plain HTTP/1.1, no TLS: behind a
// proxy, or across a network that is not yours, take libcurl in its place.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

namespace sample {

struct Reply {
    int status;
    std::map<std::string, std::string> headers;  // names in lower case
    std::vector<std::byte> body;
};

class Connection {
public:
    // `address` is HOST:PORT. Throws Failure: unusable for another form, failed if nothing answers.
    explicit Connection(const std::string& address);
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;
    ~Connection();

    // Sends a POST and waits for what comes back. Throws Failure (failed) if the server goes away.
    Reply post(const std::string& path, const std::map<std::string, std::string>& headers,
               const std::vector<std::byte>& body);

private:
    void send_all(const std::byte* data, std::size_t size);
    std::size_t receive(std::byte* data, std::size_t size);

    std::string address_;
    int socket_ = -1;
};

}  // namespace sample
