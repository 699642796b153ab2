// SPDX-License-Identifier: Apache-2.0
import PenstockSystem

/// NATS JetStream: publishes with an answer to a stream in files that keeps what is not
/// acknowledged; pulls, and acknowledgements that are answered.
final class NATSLoad: LoadProtocol {
  private enum Step { case greet, stream, consumer, publish, pull, acknowledge }

  private let role: PeerRole
  private let stream: String
  private let work: PeerWork
  private let inbox = "_INBOX.\(SystemRandom().next())"
  private let publish: [UInt8]
  private let pull: [UInt8]
  private var step = Step.greet
  /// Answers that are to come.
  private var awaited = 0
  private var acknowledgements: [UInt8] = []

  init(_ role: PeerRole, _ queue: String, _ work: PeerWork, _ body: [UInt8]) {
    (self.role, stream, self.work) = (role, queue, work)
    let one =
      Array("PUB \(queue) \(inbox) \(body.count)\r\n".utf8) + body + Array("\r\n".utf8)
    publish = Array([[UInt8]](repeating: one, count: work.batch).joined())
    pull = Self.ask(
      "CONSUMER.MSG.NEXT.\(queue).c", #"{"batch":\#(work.batch),"expires":10000000000}"#, inbox)
  }

  private static func ask(_ subject: String, _ text: String, _ inbox: String) -> [UInt8] {
    Array("PUB $JS.API.\(subject) \(inbox) \(text.utf8.count)\r\n\(text)\r\n".utf8)
  }

  func connected(_ output: inout LoadOutput) -> Bool {
    output.put(
      #"CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true}"#
        + "\r\nSUB \(inbox) 1\r\nPING\r\n")
    return false
  }

  func begin(_ output: inout LoadOutput) {
    step = .publish
    awaited = work.batch
    output.put(publish)
  }

  func read(_ input: UnsafeRawBufferPointer, _ output: inout LoadOutput) throws -> LoadAnswer {
    guard let (end, next) = input.line() else { return .partial }
    if input.has("INFO ") || input.has("+OK") { return .taken(next) }
    if input.has("PING") {
      output.put("PONG\r\n")
      return .taken(next)
    }
    if input.has("PONG") { return greeted(next, &output) }
    guard input.has("MSG ") else { throw LoadError("NATS: \(input.text(0..<min(end, 200)))") }
    // MSG, subject, subscription, perhaps where to answer, size.
    var spaces: [Int] = []
    while let space = input.place(of: 0x20, from: (spaces.last ?? -1) + 1), space < end {
      spaces.append(space)
    }
    guard let last = spaces.last, spaces.count >= 3, let (size, _) = input.number(at: last) else {
      throw LoadError("NATS: \(input.text(0..<end))")
    }
    let used = next + size + 2
    guard used <= input.count else { return .partial }
    let payload = UnsafeRawBufferPointer(rebasing: input[next..<next + size])
    if step != .pull, payload.place(of: "\"error\"") != nil {
      throw LoadError("NATS: \(payload.text(0..<size))")
    }
    if step == .pull, spaces.count == 4 {
      let answer = Array(input[spaces[2] + 1..<last])
      acknowledgements += Array("PUB ".utf8) + answer + Array(" \(inbox) 4\r\n+ACK\r\n".utf8)
    }
    return answered(used, &output)
  }

  private func greeted(_ used: Int, _ output: inout LoadOutput) -> LoadAnswer {
    awaited = 1
    switch role {
    case .work: return .ended(used, messages: 0)
    case .make:
      step = .stream
      output.put(
        Self.ask(
          "STREAM.CREATE.\(stream)",
          #"{"name":"\#(stream)","subjects":["\#(stream)"],"retention":"workqueue","#
            + #""storage":"file","num_replicas":1,"discard":"old","max_msgs":-1,"max_bytes":-1,"#
            + #""max_consumers":-1,"max_age":0}"#, inbox))
    case .drop:
      step = .consumer
      output.put(Self.ask("STREAM.DELETE.\(stream)", "", inbox))
    }
    return .taken(used)
  }

  private func answered(_ used: Int, _ output: inout LoadOutput) -> LoadAnswer {
    awaited -= 1
    guard awaited <= 0 else { return .taken(used) }
    awaited = work.batch
    switch step {
    case .greet: break
    case .stream:
      step = .consumer
      awaited = 1
      output.put(
        Self.ask(
          "CONSUMER.DURABLE.CREATE.\(stream).c",
          #"{"stream_name":"\#(stream)","config":{"durable_name":"c","ack_policy":"explicit","#
            + #""deliver_policy":"all","ack_wait":30000000000,"max_ack_pending":100000}}"#, inbox))
    case .consumer: return .ended(used, messages: 0)
    case .publish:
      if !work.cycles { return .ended(used, messages: work.batch) }
      step = .pull
      output.put(pull)
    case .pull:
      step = .acknowledge
      output.put(acknowledgements)
      acknowledgements = []
    case .acknowledge: return .ended(used, messages: work.batch)
    }
    return .taken(used)
  }
}
