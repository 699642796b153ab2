// SPDX-License-Identifier: Apache-2.0
import Foundation

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// A blocking HTTP client that can also send what no decent client would.
final class HTTPClient {
  struct Failure: Error { var what: String }

  struct Response {
    var status: Int
    var headers: [String: String]
    var body: [UInt8]

    var text: String { String(decoding: body, as: UTF8.self) }
    var object: [String: Any] {
      (try? JSONSerialization.jsonObject(with: Data(body))) as? [String: Any] ?? [:]
    }
    subscript(_ name: String) -> String? { object[name] as? String }
    var error: String? {
      self["__type"].flatMap { $0.split(separator: "#").last.map(String.init) }
    }
  }

  #if os(Linux)
    private static let noSignal = CInt(MSG_NOSIGNAL)
  #else
    private static let noSignal: CInt = 0
  #endif

  private var descriptor: CInt
  private var buffer: [UInt8] = []

  init(port: Int, timeoutSeconds: Int = 60, receiveBuffer: CInt? = nil) throws {
    #if canImport(Glibc)
      descriptor = socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0)
    #else
      descriptor = socket(AF_INET, SOCK_STREAM, 0)
    #endif
    guard descriptor >= 0 else { throw Failure(what: "socket: \(errno)") }
    var timeout = timeval(tv_sec: timeoutSeconds, tv_usec: 0)
    let size = socklen_t(MemoryLayout<timeval>.size)
    _ = setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, size)
    _ = setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &timeout, size)
    if var receiveBuffer {
      let size = socklen_t(MemoryLayout<CInt>.size)
      _ = setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &receiveBuffer, size)
    }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = in_port_t(port).bigEndian
    address.sin_addr.s_addr = inet_addr("127.0.0.1")
    let result = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard result == 0 else {
      let code = errno
      close()
      throw Failure(what: "connect: \(code)")
    }
  }

  deinit { close() }

  func close() {
    guard descriptor >= 0 else { return }
    #if canImport(Glibc)
      _ = Glibc.close(descriptor)
    #else
      _ = Darwin.close(descriptor)
    #endif
    descriptor = -1
  }

  func write(_ text: String) throws { try write(Array(text.utf8)) }

  func write(_ bytes: [UInt8]) throws {
    var rest = bytes[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes {
        send(descriptor, $0.baseAddress, $0.count, Self.noSignal)
      }
      guard count > 0 else { throw Failure(what: "send: \(errno)") }
      rest = rest.dropFirst(count)
    }
  }

  /// Reads more into the buffer. False at the end of the stream.
  private func fill() throws -> Bool {
    var chunk = [UInt8](repeating: 0, count: 65_536)
    let count = chunk.withUnsafeMutableBytes { recv(descriptor, $0.baseAddress, $0.count, 0) }
    guard count >= 0 else { throw Failure(what: "recv: \(errno)") }
    buffer.append(contentsOf: chunk[..<count])
    return count > 0
  }

  /// True if the server has closed the connection and nothing is left to read.
  func isClosed() throws -> Bool { try buffer.isEmpty && !fill() }

  func readResponse() throws -> Response {
    let separator = Array("\r\n\r\n".utf8)
    var headEnd = buffer.firstRange(of: separator)
    while headEnd == nil {
      guard try fill() else { throw Failure(what: "closed before a response") }
      headEnd = buffer.firstRange(of: separator)
    }
    guard let headEnd else { throw Failure(what: "no head") }
    let head = String(decoding: buffer[..<headEnd.lowerBound], as: UTF8.self)
    buffer.removeSubrange(..<headEnd.upperBound)
    let lines = head.components(separatedBy: "\r\n")
    let parts = lines[0].split(separator: " ")
    guard parts.count >= 2, let status = Int(parts[1]) else {
      throw Failure(what: "bad status line: \(lines[0])")
    }
    var headers: [String: String] = [:]
    for line in lines.dropFirst() {
      guard let colon = line.firstIndex(of: ":") else { throw Failure(what: "bad header") }
      headers[line[..<colon].lowercased()] = line[line.index(after: colon)...]
        .trimmingCharacters(in: .whitespaces)
    }
    let length = Int(headers["content-length"] ?? "0") ?? 0
    while buffer.count < length {
      guard try fill() else { throw Failure(what: "closed inside a body") }
    }
    let body = Array(buffer[..<length])
    buffer.removeSubrange(..<length)
    return Response(status: status, headers: headers, body: body)
  }

  static func request(_ action: String, _ body: String, headers: String = "") -> String {
    "POST / HTTP/1.1\r\nHost: localhost:9324\r\nContent-Type: application/x-amz-json-1.0\r\n"
      + "X-Amz-Target: AmazonSQS.\(action)\r\nContent-Length: \(body.utf8.count)\r\n\(headers)"
      + "\r\n\(body)"
  }

  func get(_ path: String, headers: String = "") throws -> Response {
    try write("GET \(path) HTTP/1.1\r\nHost: localhost:9324\r\n\(headers)\r\n")
    return try readResponse()
  }

  func call(_ action: String, _ body: String, headers: String = "") throws -> Response {
    try write(Self.request(action, body, headers: headers))
    return try readResponse()
  }
}

extension [UInt8] {
  fileprivate func firstRange(of pattern: [UInt8]) -> Range<Int>? {
    guard count >= pattern.count else { return nil }
    for start in 0...(count - pattern.count) where self[start] == pattern[0] {
      if self[start..<start + pattern.count].elementsEqual(pattern) {
        return start..<start + pattern.count
      }
    }
    return nil
  }
}
