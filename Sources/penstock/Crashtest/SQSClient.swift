// SPDX-License-Identifier: Apache-2.0
import Foundation
import PenstockSQS

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Where an SQS endpoint listens. Plain HTTP only.
package struct Endpoint: Equatable, Sendable {
  package var host: String
  package var port: Int
  package var path: String

  package init(host: String, port: Int, path: String = "/") {
    self.host = host
    self.port = port
    self.path = path
  }

  /// Nil unless it is `http://HOST[:PORT][/PATH]`.
  package init?(_ text: String) {
    guard let parts = URLComponents(string: text), parts.scheme == "http",
      let host = parts.host, !host.isEmpty
    else { return nil }
    let bare = host.hasPrefix("[") ? String(host.dropFirst().dropLast()) : host
    self.init(host: bare, port: parts.port ?? 80, path: parts.path.isEmpty ? "/" : parts.path)
  }

  var authority: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

/// No answer came: whether the request was carried out is not known.
struct NoAnswer: Error, CustomStringConvertible {
  var description: String
}

/// One keep-alive connection that speaks the AWS JSON 1.0 protocol, for one thread.
///
/// Its JSON is Foundation's, not the server's own, so a fault of ours does not hide itself.
final class SQSClient {
  struct Answer {
    var status: Int
    var members: [String: Any]
    var isSuccess: Bool { status == 200 }
    /// The error's name without its prefix.
    var error: String {
      let type = members["__type"] as? String ?? "status \(status)"
      return type.split(separator: "#").last.map(String.init) ?? type
    }
  }

  private let endpoint: Endpoint
  private let timeout: Int
  private var descriptor: CInt = -1
  private var buffer: [UInt8] = []

  init(_ endpoint: Endpoint, timeoutSeconds: Int = 20) {
    self.endpoint = endpoint
    timeout = timeoutSeconds
  }

  deinit { disconnect() }

  func call(_ action: String, _ members: [String: Any]) throws(NoAnswer) -> Answer {
    let body: Data
    do { body = try JSONSerialization.data(withJSONObject: members) } catch {
      throw NoAnswer(description: "cannot write the request: \(error)")
    }
    if descriptor < 0 { try connect() }
    do throws(NoAnswer) {
      try send(head(action, body.count) + Array(body))
      let (status, bytes) = try readAnswer()
      let object = try? JSONSerialization.jsonObject(with: Data(bytes))
      return Answer(status: status, members: object as? [String: Any] ?? [:])
    } catch {
      disconnect()
      throw error
    }
  }

  /// What a GET of a path is answered with, as text; nil if it is an error.
  func page(_ path: String) throws(NoAnswer) -> String? {
    if descriptor < 0 { try connect() }
    do throws(NoAnswer) {
      try send(Array("GET \(path) HTTP/1.1\r\nHost: \(endpoint.authority)\r\n\r\n".utf8))
      let (status, bytes) = try readAnswer()
      return status == 200 ? String(decoding: bytes, as: UTF8.self) : nil
    } catch {
      disconnect()
      throw error
    }
  }

  private func head(_ action: String, _ length: Int) -> [UInt8] {
    var now = time(nil)
    var parts = tm()
    gmtime_r(&now, &parts)
    func two(_ value: CInt) -> String { value < 10 ? "0\(value)" : "\(value)" }
    let day = "\(parts.tm_year + 1900)\(two(parts.tm_mon + 1))\(two(parts.tm_mday))"
    let date = "\(day)T\(two(parts.tm_hour))\(two(parts.tm_min))\(two(parts.tm_sec))Z"
    // Well formed and worth nothing: for endpoints that want a signature but check none.
    let credential = "Credential=crashtest/\(day)/us-east-1/sqs/aws4_request"
    let signature = String(repeating: "0", count: 64)
    let lines = [
      "POST \(endpoint.path) HTTP/1.1", "Host: \(endpoint.authority)",
      "Content-Type: application/x-amz-json-1.0", "X-Amz-Target: AmazonSQS.\(action)",
      "X-Amz-Date: \(date)", "Content-Length: \(length)",
      "Authorization: AWS4-HMAC-SHA256 \(credential), "
        + "SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature=\(signature)",
    ]
    return Array((lines.joined(separator: "\r\n") + "\r\n\r\n").utf8)
  }

  // MARK: Sockets

  func disconnect() {
    if descriptor >= 0 { _ = close(descriptor) }
    descriptor = -1
    buffer = []
  }

  private func connect() throws(NoAnswer) {
    #if canImport(Glibc)
      let kind = CInt(SOCK_STREAM.rawValue)
    #else
      let kind = SOCK_STREAM
    #endif
    var hints = addrinfo()
    hints.ai_socktype = kind
    var list: UnsafeMutablePointer<addrinfo>?
    let found = getaddrinfo(endpoint.host, String(endpoint.port), &hints, &list)
    guard found == 0, let list else {
      throw NoAnswer(description: "\(endpoint.host) is not known")
    }
    defer { freeaddrinfo(list) }
    var next: UnsafeMutablePointer<addrinfo>? = list
    var problem: CInt = 0
    while let info = next {
      next = info.pointee.ai_next
      let candidate = socket(info.pointee.ai_family, kind, info.pointee.ai_protocol)
      guard candidate >= 0 else { continue }
      // Servers that are started later must not inherit the connection.
      _ = fcntl(candidate, F_SETFD, FD_CLOEXEC)
      var limit = timeval(tv_sec: timeout, tv_usec: 0)
      let size = socklen_t(MemoryLayout<timeval>.size)
      setsockopt(candidate, SOL_SOCKET, SO_RCVTIMEO, &limit, size)
      setsockopt(candidate, SOL_SOCKET, SO_SNDTIMEO, &limit, size)
      var on: CInt = 1
      setsockopt(
        candidate, CInt(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<CInt>.size))
      #if canImport(Darwin)
        setsockopt(
          candidate, SOL_SOCKET, SO_NOSIGPIPE, &on, socklen_t(MemoryLayout<CInt>.size))
      #endif
      #if canImport(Glibc)
        let result = Glibc.connect(candidate, info.pointee.ai_addr, info.pointee.ai_addrlen)
      #elseif canImport(Musl)
        let result = Musl.connect(candidate, info.pointee.ai_addr, info.pointee.ai_addrlen)
      #else
        let result = Darwin.connect(candidate, info.pointee.ai_addr, info.pointee.ai_addrlen)
      #endif
      if result == 0 {
        descriptor = candidate
        return
      }
      problem = errno
      _ = close(candidate)
    }
    throw NoAnswer(description: "cannot connect to \(endpoint.authority): errno \(problem)")
  }

  private func send(_ bytes: [UInt8]) throws(NoAnswer) {
    #if os(Linux)
      let flags = CInt(MSG_NOSIGNAL)
    #else
      let flags: CInt = 0
    #endif
    var done = 0
    while done < bytes.count {
      let count = bytes[done...].withUnsafeBytes { raw in
        #if canImport(Glibc)
          Glibc.send(descriptor, raw.baseAddress, raw.count, flags)
        #elseif canImport(Musl)
          Musl.send(descriptor, raw.baseAddress, raw.count, flags)
        #else
          Darwin.send(descriptor, raw.baseAddress, raw.count, flags)
        #endif
      }
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { throw NoAnswer(description: "send: errno \(errno)") }
      done += count
    }
  }

  private func fill() throws(NoAnswer) {
    guard buffer.count < 64 << 20 else { throw NoAnswer(description: "the answer has no end") }
    var chunk = [UInt8](repeating: 0, count: 65_536)
    var count = 0
    repeat {
      count = chunk.withUnsafeMutableBytes { recv(descriptor, $0.baseAddress, $0.count, 0) }
    } while count < 0 && errno == EINTR
    guard count > 0 else {
      throw NoAnswer(description: count == 0 ? "connection closed" : "recv: errno \(errno)")
    }
    buffer.append(contentsOf: chunk[..<count])
  }

  /// Takes a line without its CRLF out of the buffer.
  private func line() throws(NoAnswer) -> String {
    var from = 0
    while true {
      if let end = buffer[from...].firstIndex(of: 10) {
        var text = buffer[..<end]
        if text.last == 13 { text = text.dropLast() }
        let line = String(decoding: text, as: UTF8.self)
        buffer.removeFirst(end + 1)
        return line
      }
      from = buffer.count
      try fill()
    }
  }

  private func take(_ count: Int) throws(NoAnswer) -> [UInt8] {
    while buffer.count < count { try fill() }
    let bytes = Array(buffer[..<count])
    buffer.removeFirst(count)
    return bytes
  }

  private func readAnswer() throws(NoAnswer) -> (status: Int, body: [UInt8]) {
    let words = try line().split(separator: " ")
    guard words.count >= 2, words[0].hasPrefix("HTTP/1."), let status = Int(words[1]) else {
      throw NoAnswer(description: "no HTTP answer")
    }
    var length: Int?
    var isChunked = false
    var closes = words[0] == "HTTP/1.0"
    while true {
      let text = try line()
      if text.isEmpty { break }
      guard let colon = text.firstIndex(of: ":") else { continue }
      let name = text[..<colon].lowercased()
      let value = text[text.index(after: colon)...].trimmingCharacters(in: .whitespaces)
      switch name {
      case "content-length": length = Int(value)
      case "transfer-encoding": isChunked = value.lowercased().contains("chunked")
      case "connection": closes = value.lowercased() == "close"
      default: break
      }
    }
    var body: [UInt8] = []
    if isChunked {
      while true {
        let digits = try line().prefix { $0.isHexDigit }
        guard let size = Int(digits, radix: 16), size < 64 << 20 else {
          throw NoAnswer(description: "a chunk without a size")
        }
        if size == 0 { break }
        body += try take(size)
        _ = try line()
      }
      while try !line().isEmpty {}
    } else if let length, length >= 0, length < 64 << 20 {
      body = try take(length)
    } else {
      throw NoAnswer(description: "an answer without a length")
    }
    if closes { disconnect() }
    return (status, body)
  }
}

/// A message as it was received.
struct Delivery {
  var id: String
  var handle: String
  var body: String
  /// False when the digest in the answer is not the body's.
  var digestIsRight: Bool
}

extension SQSClient {
  struct Outcome {
    /// The message id, or nil when the entry was refused.
    var ids: [String?]
    /// True when an answer named another digest than the sent body's.
    var wrongDigest = false
  }

  /// Sends the bodies in one request, alone or as a batch.
  func send(_ bodies: [String], to queue: String, delay: Int) throws(NoAnswer) -> Outcome {
    if bodies.count == 1 {
      var members: [String: Any] = ["QueueUrl": queue, "MessageBody": bodies[0]]
      if delay > 0 { members["DelaySeconds"] = delay }
      let answer = try call("SendMessage", members)
      guard answer.isSuccess, let id = answer.members["MessageId"] as? String else {
        return Outcome(ids: [nil])
      }
      let digest = answer.members["MD5OfMessageBody"] as? String
      return Outcome(ids: [id], wrongDigest: digest != Digests.ofBody(Array(bodies[0].utf8)))
    }
    let entries = bodies.enumerated().map { place, body -> [String: Any] in
      var entry: [String: Any] = ["Id": "\(place)", "MessageBody": body]
      if delay > 0 { entry["DelaySeconds"] = delay }
      return entry
    }
    let answer = try call("SendMessageBatch", ["QueueUrl": queue, "Entries": entries])
    var outcome = Outcome(ids: Array(repeating: nil, count: bodies.count))
    guard answer.isSuccess else { return outcome }
    for entry in answer.members["Successful"] as? [[String: Any]] ?? [] {
      guard let place = (entry["Id"] as? String).flatMap({ Int($0) }),
        bodies.indices.contains(place), let id = entry["MessageId"] as? String
      else { continue }
      outcome.ids[place] = id
      let digest = entry["MD5OfMessageBody"] as? String
      if digest != Digests.ofBody(Array(bodies[place].utf8)) { outcome.wrongDigest = true }
    }
    return outcome
  }

  /// Nil when the request was answered with an error.
  func receive(
    _ queue: String, maximum: Int, visibility: Int, wait: Int
  ) throws(NoAnswer) -> [Delivery]? {
    let answer = try call(
      "ReceiveMessage",
      [
        "QueueUrl": queue, "MaxNumberOfMessages": maximum, "VisibilityTimeout": visibility,
        "WaitTimeSeconds": wait,
      ])
    guard answer.isSuccess else { return nil }
    return (answer.members["Messages"] as? [[String: Any]] ?? []).map { message in
      let body = message["Body"] as? String ?? ""
      return Delivery(
        id: message["MessageId"] as? String ?? "",
        handle: message["ReceiptHandle"] as? String ?? "", body: body,
        digestIsRight: message["MD5OfBody"] as? String == Digests.ofBody(Array(body.utf8)))
    }
  }

  /// Which of the handles were deleted.
  func delete(_ handles: [String], from queue: String) throws(NoAnswer) -> [Bool] {
    if handles.count == 1 {
      let answer = try call("DeleteMessage", ["QueueUrl": queue, "ReceiptHandle": handles[0]])
      return [answer.isSuccess]
    }
    let entries = handles.enumerated().map { ["Id": "\($0)", "ReceiptHandle": $1] }
    let answer = try call("DeleteMessageBatch", ["QueueUrl": queue, "Entries": entries])
    var done = Array(repeating: false, count: handles.count)
    guard answer.isSuccess else { return done }
    for entry in answer.members["Successful"] as? [[String: Any]] ?? [] {
      if let place = (entry["Id"] as? String).flatMap({ Int($0) }), done.indices.contains(place) {
        done[place] = true
      }
    }
    return done
  }
}
