// SPDX-License-Identifier: Apache-2.0

/// RabbitMQ over AMQP 0-9-1: persistent publishes to a quorum queue, with publisher confirms; each
/// worker consumes with a prefetch of a batch and acknowledges all of it at once. Such an
/// acknowledgement has no answer, so a cycle ends when it is said.
final class AMQPLoad: LoadProtocol {
  private let role: PeerRole
  private let queue: String
  private let work: PeerWork
  private let publish: [UInt8]
  private var published: UInt64 = 0
  private var confirmed: UInt64 = 0
  private var delivered = 0
  private var lastTag: UInt64 = 0

  init(_ role: PeerRole, _ queue: String, _ work: PeerWork, _ body: [UInt8]) {
    (self.role, self.queue, self.work) = (role, queue, work)
    var header: [UInt8] = [0, 60, 0, 0]
    header.putBig(UInt64(body.count))
    // One property: the delivery mode, persistent.
    header += [0x10, 0, 2]
    let one =
      Self.method(60, 40, [0, 0, 0] + Self.short(queue) + [0]) + Self.frame(2, header)
      + Self.frame(3, body)
    publish = Array([[UInt8]](repeating: one, count: work.batch).joined())
  }

  // MARK: Frames

  static func frame(_ type: UInt8, channel: UInt16 = 1, _ payload: [UInt8]) -> [UInt8] {
    var bytes = [type]
    bytes.putBig(channel)
    bytes.putBig(UInt32(payload.count))
    return bytes + payload + [0xce]
  }

  static func method(
    _ kind: UInt16, _ method: UInt16, channel: UInt16 = 1, _ arguments: [UInt8]
  ) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.putBig(kind)
    bytes.putBig(method)
    return frame(1, channel: channel, bytes + arguments)
  }

  private static func short(_ text: String) -> [UInt8] { [UInt8(text.utf8.count)] + text.utf8 }

  private static func long(_ bytes: [UInt8]) -> [UInt8] {
    var length: [UInt8] = []
    length.putBig(UInt32(bytes.count))
    return length + bytes
  }

  // MARK: Rounds

  func connected(_ output: inout LoadOutput) -> Bool {
    output.put(Array("AMQP".utf8) + [0, 0, 9, 1])
    return false
  }

  func begin(_ output: inout LoadOutput) {
    published += UInt64(work.batch)
    output.put(publish)
  }

  func read(_ input: UnsafeRawBufferPointer, _ output: inout LoadOutput) throws -> LoadAnswer {
    guard input.count >= 8 else { return .partial }
    guard input[0] != UInt8(ascii: "A") else { throw LoadError("RabbitMQ: another protocol") }
    let size = Int(input.big(UInt32.self, at: 3))
    let used = size + 8
    guard input.count >= used else { return .partial }
    switch input[0] {
    case 1 where size >= 4:
      let method = (input.big(UInt16.self, at: 7), input.big(UInt16.self, at: 9))
      let arguments = UnsafeRawBufferPointer(rebasing: input[11..<used - 1])
      return try read(method, arguments, used, &output)
    case 3 where work.cycles:
      delivered += 1
      return ended(used, &output)
    default: return .taken(used)
    }
  }

  private func read(
    _ method: (UInt16, UInt16), _ arguments: UnsafeRawBufferPointer, _ used: Int,
    _ output: inout LoadOutput
  ) throws -> LoadAnswer {
    switch method {
    case (10, 10):
      let login = Self.long([0] + Array("guest".utf8) + [0] + Array("guest".utf8))
      output.put(
        Self.method(
          10, 11, channel: 0, Self.long([]) + Self.short("PLAIN") + login + Self.short("en_US")))
    case (10, 30) where arguments.count >= 8:
      // The same channels and frames; no heartbeats.
      output.put(Self.method(10, 31, channel: 0, Array(arguments[0..<6]) + [0, 0]))
      output.put(Self.method(10, 40, channel: 0, Self.short("/") + [0, 0]))
    case (10, 41): output.put(Self.method(20, 10, [0]))
    case (20, 11): opened(&output)
    case (85, 11):
      guard work.cycles else { return .ended(used, messages: 0) }
      var limit: [UInt8] = [0, 0, 0, 0]
      limit.putBig(UInt16(work.batch))
      output.put(Self.method(60, 10, limit + [0]))
    case (60, 11):
      output.put(
        Self.method(60, 20, [0, 0] + Self.short(queue) + [0, 0] + Self.long([])))
    case (60, 21), (50, 11), (50, 41): return .ended(used, messages: 0)
    case (60, 80) where arguments.count >= 9:
      let (tag, isMultiple) = (arguments.big(UInt64.self, at: 0), arguments[8] & 1 == 1)
      // Confirms of single messages may come out of order; how many there were is what counts.
      confirmed = isMultiple ? max(confirmed, tag) : confirmed + 1
      return ended(used, &output)
    case (60, 60) where arguments.count > Int(arguments[0]) + 8:
      lastTag = arguments.big(UInt64.self, at: Int(arguments[0]) + 1)
    default:
      // Of a close it is a code and a text; else it was not expected.
      let text = arguments.count > 3 ? arguments.text(3..<arguments.count) : ""
      throw LoadError("RabbitMQ: method \(method.0).\(method.1) \(text)")
    }
    return .taken(used)
  }

  private func opened(_ output: inout LoadOutput) {
    switch role {
    case .make:
      let table = Self.short("x-queue-type") + Array("S".utf8) + Self.long(Array("quorum".utf8))
      output.put(Self.method(50, 10, [0, 0] + Self.short(queue) + [2] + Self.long(table)))
    case .drop: output.put(Self.method(50, 40, [0, 0] + Self.short(queue) + [0]))
    case .work: output.put(Self.method(85, 10, [0]))
    }
  }

  private func ended(_ used: Int, _ output: inout LoadOutput) -> LoadAnswer {
    guard published > 0, confirmed == published else { return .taken(used) }
    guard work.cycles else { return .ended(used, messages: work.batch) }
    guard delivered == work.batch else { return .taken(used) }
    delivered = 0
    var tag: [UInt8] = []
    tag.putBig(lastTag)
    output.put(Self.method(60, 80, tag + [1]))
    return .ended(used, messages: work.batch)
  }
}
