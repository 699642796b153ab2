// SPDX-License-Identifier: Apache-2.0
import Foundation

/// A server under load, over HTTP.
struct WireTarget: Sendable {
  var name: String
  var address: LoadAddress
  /// Path of the page; nil for a server that speaks SQS.
  var page: String?

  /// `NAME=http://HOST:PORT[/PATH]`.
  init?(_ text: String, isPage: Bool) {
    let parts = text.split(separator: "=", maxSplits: 1)
    guard parts.count == 2, let url = URL(string: String(parts[1])), url.scheme == "http",
      let host = url.host, let port = url.port
    else { return nil }
    self.init(
      String(parts[0]), LoadAddress(host: host, port: port),
      page: isPage ? (url.path.isEmpty ? "/" : url.path) : nil)
  }

  init(_ name: String, _ address: LoadAddress, page: String? = nil) {
    (self.name, self.address, self.page) = (name, address, page)
  }

  func request(_ action: String, _ body: String) -> [UInt8] {
    // The signature is not one; some servers look into it for the service's name.
    Array(
      ("POST / HTTP/1.1\r\nHost: \(address.host):\(address.port)\r\n"
        + "Content-Type: application/x-amz-json-1.0\r\nX-Amz-Target: AmazonSQS.\(action)\r\n"
        + "Authorization: AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/sqs/aws4_request, "
        + "SignedHeaders=host, Signature=0\r\nContent-Length: \(body.utf8.count)\r\n\r\n" + body)
        .utf8)
  }

  func get(_ path: String) -> [UInt8] {
    Array("GET \(path) HTTP/1.1\r\nHost: \(address.host):\(address.port)\r\n\r\n".utf8)
  }

  /// Makes one request and answers its body.
  func ask(_ action: String, _ body: String) throws -> String {
    let question = HTTPQuestion(request(action, body))
    _ = try LoadLoop.run([question], to: address, LoadPlan(seconds: 0))
    return question.answer
  }

  /// Makes a queue and answers its URL.
  func makeQueue(_ queue: String) throws -> String {
    let answer = try ask("CreateQueue", #"{"QueueName":"\#(queue)"}"#)
    let parts = answer.split(separator: "\"")
    guard let place = parts.firstIndex(of: "QueueUrl"), place + 2 < parts.count else {
      throw LoadError("\(name) answered CreateQueue with \(answer)")
    }
    return String(parts[place + 2])
  }
}

/// What each connection does, again and again.
enum WireWork: String, CaseIterable, Sendable {
  /// Asks for a page that is always the same.
  case page
  case send
  /// Sends a batch of messages at a time.
  case batch
  /// Sends one message, receives one, deletes it.
  case cycle
  /// The same by batches.
  case cycles
  /// Receives from an empty queue.
  case empty

  /// Requests of one round where nothing has to be asked for twice.
  var requests: Int { self == .cycle || self == .cycles ? 3 : 1 }
}

/// The first answer of HTTP/1.1 in some bytes, once it is complete.
struct HTTPAnswer: Equatable {
  var status: Int
  /// Whether the server closes the connection after it.
  var closes: Bool
  var body: Range<Int>

  init?(_ input: UnsafeRawBufferPointer) throws {
    guard var (_, next) = input.line() else { return nil }
    guard input.has("HTTP/1."), let (status, _) = input.number(at: 8) else {
      throw LoadError("an answer is not HTTP: \(input.text(0..<min(80, input.count)))")
    }
    (self.status, closes) = (status, false)
    var length: Int?
    while true {
      guard let (end, following) = input.line(from: next) else { return nil }
      if end == next {
        next = following
        break
      }
      let first = input[next] | 0x20
      if first == 0x63 {
        if input.hasAnyCase("content-length:", at: next) {
          length = input.number(at: next + 15)?.value
        } else if input.hasAnyCase("connection:", at: next) {
          closes = input.hasAnyCase("close", at: end - 5)
        }
      }
      next = following
    }
    guard let length, length >= 0 else {
      throw LoadError("an answer has no Content-Length: \(input.text(0..<next))")
    }
    guard input.count - next >= length else { return nil }
    body = next..<next + length
  }
}

/// A connection of HTTP: pages, or the actions of SQS.
final class HTTPLoad: LoadProtocol {
  let reconnects = true
  private(set) var closes = false

  private enum Step { case only, send, receive, delete }

  private let target: WireTarget
  private let named: String
  private let batch: Int
  private let cycles: Bool
  private let first: [UInt8]
  private let receive: [UInt8]
  private var step: Step
  /// Messages of the round that are not deleted yet.
  private var left = 0
  private var received = 0

  init(_ work: WireWork, _ target: WireTarget, queue: String, body: Int, batch: Int) {
    self.target = target
    named = #"{"QueueUrl":"\#(queue)""#
    self.batch = work == .batch || work == .cycles ? batch : 1
    cycles = work == .cycle || work == .cycles
    receive = Self.receive(self.batch, named, target)
    let text = String(repeating: "x", count: body)
    switch work {
    case .page: first = target.get(target.page ?? "/")
    case .empty: first = receive
    case .send, .cycle:
      first = target.request("SendMessage", #"\#(named),"MessageBody":"\#(text)"}"#)
    case .batch, .cycles:
      let entries = (0..<batch).map { #"{"Id":"\#($0)","MessageBody":"\#(text)"}"# }
      first = target.request(
        "SendMessageBatch", #"\#(named),"Entries":[\#(entries.joined(separator: ","))]}"#)
    }
    step = cycles ? .send : .only
  }

  private static func receive(_ most: Int, _ named: String, _ target: WireTarget) -> [UInt8] {
    target.request(
      "ReceiveMessage", named + (most == 1 ? "}" : #","MaxNumberOfMessages":\#(most)}"#))
  }

  func connected(_ output: inout LoadOutput) -> Bool {
    closes = false
    return true
  }

  func begin(_ output: inout LoadOutput) {
    step = cycles ? .send : .only
    left = batch
    output.put(first)
  }

  func read(_ input: UnsafeRawBufferPointer, _ output: inout LoadOutput) throws -> LoadAnswer {
    guard let answer = try HTTPAnswer(input) else { return .partial }
    closes = answer.closes
    let used = answer.body.upperBound
    guard answer.status == 200 else {
      throw LoadError("an answer was \(answer.status): \(input.text(answer.body))")
    }
    let body = UnsafeRawBufferPointer(rebasing: input[answer.body])
    // An entry of a batch may fail in an answer of 200.
    if batch > 1, step != .receive, let failed = body.place(of: "\"Failed\"") {
      let list = body.place(of: 0x5b, from: failed).map { $0 + 1 } ?? failed
      if let entry = body.place(of: 0x7b, from: list), entry - list < 4 {
        throw LoadError("an entry failed: \(input.text(answer.body))")
      }
    }
    switch step {
    case .only: return .ended(used, messages: batch)
    case .send:
      step = .receive
      output.put(receive)
    case .receive:
      let handles = Self.handles(in: body)
      received = handles.count
      // Without any, others were faster: there is one for each that was sent.
      if received == 0 {
        output.put(left == batch ? receive : Self.receive(left, named, target))
      } else {
        step = .delete
        output.put(delete(handles))
      }
    case .delete:
      left -= received
      if left <= 0 { return .ended(used, messages: batch) }
      step = .receive
      output.put(Self.receive(left, named, target))
    }
    return .taken(used)
  }

  private func delete(_ handles: [String]) -> [UInt8] {
    guard batch > 1 else {
      return target.request("DeleteMessage", #"\#(named),"ReceiptHandle":"\#(handles[0])"}"#)
    }
    let entries = handles.enumerated().map { #"{"Id":"\#($0)","ReceiptHandle":"\#($1)"}"# }
    return target.request(
      "DeleteMessageBatch", #"\#(named),"Entries":[\#(entries.joined(separator: ","))]}"#)
  }

  /// The receipt handles of an answer, as they stand in the JSON.
  static func handles(in body: UnsafeRawBufferPointer) -> [String] {
    var handles: [String] = []
    var place = 0
    while let name = body.place(of: "\"ReceiptHandle\"", from: place),
      let start = body.place(of: 0x22, from: name + 15),
      let end = body.place(of: 0x22, from: start + 1)
    {
      handles.append(body.text(start + 1..<end))
      place = end + 1
    }
    return handles
  }
}

/// One request, as a greeting.
private final class HTTPQuestion: LoadProtocol {
  private let request: [UInt8]
  private(set) var answer = ""

  init(_ request: [UInt8]) { self.request = request }

  func connected(_ output: inout LoadOutput) -> Bool {
    output.put(request)
    return false
  }

  func begin(_ output: inout LoadOutput) {}

  func read(_ input: UnsafeRawBufferPointer, _ output: inout LoadOutput) throws -> LoadAnswer {
    guard let parsed = try HTTPAnswer(input) else { return .partial }
    answer = input.text(parsed.body)
    guard parsed.status == 200 else { throw LoadError("an answer was \(parsed.status): \(answer)") }
    return .ended(parsed.body.upperBound, messages: 0)
  }
}
