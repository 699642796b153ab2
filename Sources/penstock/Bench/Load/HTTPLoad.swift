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

  /// Makes a queue whose messages stay away for long once they are received; answers its URL.
  func makeQueue(_ queue: String) throws -> String {
    let kind = queue.hasSuffix(".fifo") ? #","FifoQueue":"true""# : ""
    let answer = try ask(
      "CreateQueue",
      #"{"QueueName":"\#(queue)","Attributes":{"VisibilityTimeout":"43200"\#(kind)}}"#)
    let parts = answer.split(separator: "\"")
    guard let place = parts.firstIndex(of: "QueueUrl"), place + 2 < parts.count else {
      throw LoadError("\(name) answered CreateQueue with \(answer)")
    }
    return String(parts[place + 2])
  }

  /// Messages of a queue, received or not.
  func count(in queue: String) throws -> Int {
    let answer = try ask(
      "GetQueueAttributes", #"{"QueueUrl":"\#(queue)","AttributeNames":["All"]}"#)
    do {
      let values = try JSONDecoder().decode(QueueAttributes.self, from: Data(answer.utf8)).values
      return try ["", "NotVisible", "Delayed"].reduce(0) { count, which in
        guard let more = values["ApproximateNumberOfMessages\(which)"].flatMap({ Int($0) }) else {
          throw LoadError("a number is missing")
        }
        return count + more
      }
    } catch {
      throw LoadError("\(name) answered GetQueueAttributes with \(answer): \(error)")
    }
  }

  private struct QueueAttributes: Decodable {
    enum CodingKeys: String, CodingKey { case values = "Attributes" }
    var values: [String: String]
  }

  func removeQueue(_ queue: String) throws {
    _ = try ask("DeleteQueue", #"{"QueueUrl":"\#(queue)"}"#)
  }
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
  /// What is done in a round.
  enum Part {
    case page
    /// A receive where nothing is there.
    case empty
    case send
    /// A receive alone, while something is there.
    case receive
    /// A receive, and a delete of what came.
    case take
    /// All three, with as many messages received as sent.
    case cycle
  }

  private enum Step { case only, send, receive, delete }

  private(set) var closes = false
  private(set) var isDone = false
  /// A request that is said twice may be done twice: not where that is counted.
  var reconnects: Bool { check == nil || !isBusy }
  var isPaced: Bool { part != .receive && part != .take }

  private let part: Part
  private let target: WireTarget
  private let named: String
  private let batch: Int
  private let check: WireCheck?
  private var groups: GroupNumbers?
  private var first: [UInt8]
  /// Places in the first request that are written anew in each round.
  private let slots: [Int]
  private let receive: [UInt8]
  /// Whether a round is under way.
  private var isBusy = false
  private var step = Step.only
  /// Messages of the round that are not deleted yet.
  private var left = 0
  private var received = 0

  /// Holds a place for a number.
  private static let slot: StaticString = "@@@@@@@@@@@@@@@@"

  init(
    _ part: Part, _ target: WireTarget, queue: String, body: Int, batch: Int,
    check: WireCheck? = nil, groups: GroupNumbers? = nil
  ) {
    (self.part, self.target, self.batch) = (part, target, batch)
    (self.check, self.groups) = (check, groups)
    named = #"{"QueueUrl":"\#(queue)""#
    receive = Self.receive(batch, waits: part == .receive || part == .take, named, target)
    switch part {
    case .page: first = target.get(target.page ?? "/")
    case .empty, .receive, .take: first = receive
    case .send, .cycle:
      var message = #""MessageBody":""# + WireCheck.text(body)
      if check?.isStamped == true {
        message = #""MessageBody":"\#(Self.slot)\#(Self.slot)"# + WireCheck.unstamped(body)
      }
      if groups != nil {
        message =
          #""MessageGroupId":"\#(Self.slot)","MessageDeduplicationId":"\#(Self.slot)","# + message
      }
      let entries = (0..<batch).map { #"{"Id":"\#($0)",\#(message)"}"# }
      first =
        batch == 1
        ? target.request("SendMessage", #"\#(named),\#(message)"}"#)
        : target.request(
          "SendMessageBatch", #"\#(named),"Entries":[\#(entries.joined(separator: ","))]}"#)
    }
    slots = check?.isStamped == true ? Self.slots(in: first) : []
  }

  private static func slots(in request: [UInt8]) -> [Int] {
    request.withUnsafeBytes { request in
      var slots: [Int] = []
      while let place = request.place(of: slot, from: slots.last.map { $0 + 16 } ?? 0) {
        slots.append(place)
      }
      return slots
    }
  }

  private static func receive(
    _ most: Int, waits: Bool, _ named: String, _ target: WireTarget
  ) -> [UInt8] {
    target.request(
      "ReceiveMessage",
      named + (most == 1 ? "" : #","MaxNumberOfMessages":\#(most)"#)
        + (waits ? #","WaitTimeSeconds":1}"# : "}"))
  }

  func connected(_ output: inout LoadOutput) -> Bool {
    closes = false
    return true
  }

  func measures(_ window: Range<UInt64>) { check?.window = window }

  func begin(at time: UInt64, _ output: inout LoadOutput) {
    // Of each message: its group, its identifier, when it was sent, its identifier.
    let perMessage = slots.count / batch
    for place in stride(from: 0, to: slots.count, by: max(perMessage, 1)) {
      let message = groups?.next()
      let number = message.map { WireCheck.number($0.number, of: $0.group) } ?? 0
      let values = [UInt64(message?.group ?? 0), number, time, number].suffix(perMessage)
      for (slot, value) in zip(slots[place...], values) {
        WireCheck.put(value, in: &first, at: slot)
      }
    }
    begin(&output)
  }

  func begin(_ output: inout LoadOutput) {
    switch part {
    case .page, .empty: step = .only
    case .send, .cycle: step = .send
    case .receive, .take: step = .receive
    }
    isBusy = true
    left = batch
    output.put(first)
  }

  func read(_ input: UnsafeRawBufferPointer, _ output: inout LoadOutput) throws -> LoadAnswer {
    let answer = try take(input, &output)
    switch answer {
    case .ended, .passed: isBusy = false
    case .partial, .taken: break
    }
    return answer
  }

  private func take(
    _ input: UnsafeRawBufferPointer, _ output: inout LoadOutput
  ) throws -> LoadAnswer {
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
    case .only: return .ended(used, messages: 0)
    case .send:
      try check?.noteSent(body, batch)
      guard part == .cycle else { return .ended(used, messages: batch) }
      step = .receive
      output.put(receive)
    case .receive:
      let handles = Self.handles(in: body)
      received = handles.count
      try check?.noteReceived(body, received)
      if part == .receive || part == .take, received == 0 {
        isDone = check?.isOver ?? true
        return .passed(used)
      }
      if part == .receive { return .ended(used, messages: received) }
      // Without any, others were faster: there is one for each that was sent.
      if received == 0 {
        receiveRest(&output)
      } else {
        step = .delete
        output.put(delete(handles))
      }
    case .delete:
      check?.deleted += received
      left -= received
      if part == .take {
        // What others send is measured by when it came.
        return check?.isStamped == true ? .passed(used) : .ended(used, messages: received)
      }
      if left <= 0 { return .ended(used, messages: batch) }
      step = .receive
      receiveRest(&output)
    }
    return .taken(used)
  }

  private func receiveRest(_ output: inout LoadOutput) {
    output.put(left == batch ? receive : Self.receive(left, waits: false, named, target))
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
    values(of: "\"ReceiptHandle\"", in: body).map { body.text($0) }
  }

  /// Where the texts are that an answer has for a name, given with its quotes.
  static func values(of name: StaticString, in body: UnsafeRawBufferPointer) -> [Range<Int>] {
    var values: [Range<Int>] = []
    var place = 0
    while let found = body.place(of: name, from: place),
      let start = body.place(of: 0x22, from: found + name.utf8CodeUnitCount),
      let end = body.place(of: 0x22, from: start + 1)
    {
      values.append(start + 1..<end)
      place = end + 1
    }
    return values
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
