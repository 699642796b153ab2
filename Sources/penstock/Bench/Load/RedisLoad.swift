// SPDX-License-Identifier: Apache-2.0

/// Redis Streams: XADD; XREADGROUP, then XACK and XDEL. More than one of a kind go in one
/// MULTI/EXEC, as client libraries send a pipeline, so that they are one write of the file.
final class RedisLoad: LoadProtocol {
  private enum Step { case add, receive, delete }

  private let role: PeerRole
  private let queue: [UInt8]
  private let work: PeerWork
  private let add: [UInt8]
  private var step = Step.add
  /// Messages of the round that are not deleted yet.
  private var left = 0
  private var received = 0
  /// Answers that are to come before the one that counts.
  private var skips = 0

  init(_ role: PeerRole, _ queue: String, _ work: PeerWork, _ body: [UInt8]) {
    (self.role, self.work) = (role, work)
    self.queue = Array(queue.utf8)
    let one = Self.command([Array("XADD".utf8), self.queue, [0x2a], [0x62], body])
    add = work.batch == 1 ? one : Self.transaction([[UInt8]](repeating: one, count: work.batch))
  }

  static func command(_ parts: [[UInt8]]) -> [UInt8] {
    var bytes = Array("*\(parts.count)\r\n".utf8)
    for part in parts {
      bytes += "$\(part.count)\r\n".utf8
      bytes += part
      bytes += [0x0d, 0x0a]
    }
    return bytes
  }

  private static func command(_ parts: String...) -> [UInt8] {
    command(parts.map { Array($0.utf8) })
  }

  private static func transaction(_ commands: [[UInt8]]) -> [UInt8] {
    command("MULTI") + commands.joined() + command("EXEC")
  }

  func connected(_ output: inout LoadOutput) -> Bool {
    switch role {
    case .make:
      output.put(
        Self.command(
          ["XGROUP", "CREATE"].map { Array($0.utf8) } + [queue]
            + ["g", "0", "MKSTREAM"].map { Array($0.utf8) }))
    case .drop: output.put(Self.command([Array("DEL".utf8), queue]))
    case .work: return true
    }
    return false
  }

  func begin(_ output: inout LoadOutput) {
    left = work.batch
    step = .add
    output.put(add)
    // MULTI and each command are answered on their own.
    skips = work.batch == 1 ? 0 : work.batch + 1
  }

  func read(_ input: UnsafeRawBufferPointer, _ output: inout LoadOutput) throws -> LoadAnswer {
    var ids: [Range<Int>] = []
    guard let end = try Self.end(of: input, at: 0, step == .receive ? { ids.append($0) } : nil)
    else { return .partial }
    guard role == .work else { return .ended(end, messages: 0) }
    if skips > 0 {
      skips -= 1
      return .taken(end)
    }
    switch step {
    case .add:
      if !work.cycles { return .ended(end, messages: work.batch) }
      receive(&output)
    case .receive:
      received = ids.count
      if ids.isEmpty { receive(&output) } else { delete(ids.map { Array(input[$0]) }, &output) }
    case .delete:
      left -= received
      if left <= 0 { return .ended(end, messages: work.batch) }
      receive(&output)
    }
    return .taken(end)
  }

  private func receive(_ output: inout LoadOutput) {
    step = .receive
    let head = ["XREADGROUP", "GROUP", "g", "c", "COUNT", "\(left)", "STREAMS"]
    output.put(Self.command(head.map { Array($0.utf8) } + [queue, [0x3e]]))
  }

  private func delete(_ ids: [[UInt8]], _ output: inout LoadOutput) {
    step = .delete
    let commands = [
      Self.command([Array("XACK".utf8), queue, [0x67]] + ids),
      Self.command([Array("XDEL".utf8), queue] + ids),
    ]
    output.put(Self.transaction(commands))
    skips = commands.count + 1
  }

  /// Where the value at a place ends; tells the ids of stream entries: text before an array of
  /// texts, with a hyphen in it.
  static func end(
    of input: UnsafeRawBufferPointer, at place: Int, _ id: ((Range<Int>) -> Void)?
  ) throws -> Int? {
    guard let (lineEnd, next) = input.line(from: place) else { return nil }
    switch input[place] {
    case UInt8(ascii: "+"), UInt8(ascii: ":"): return next
    case UInt8(ascii: "-"): throw LoadError("Redis: \(input.text(place..<lineEnd))")
    case UInt8(ascii: "$"):
      guard let (length, _) = input.number(at: place + 1), length >= 0 else { return next }
      let end = next + length + 2
      guard end <= input.count else { return nil }
      return end
    case UInt8(ascii: "*"):
      guard let (count, _) = input.number(at: place + 1), count > 0 else { return next }
      var end = next
      for index in 0..<count {
        let start = end
        guard let after = try self.end(of: input, at: start, id) else { return nil }
        // An entry is its id and its fields.
        if index == 0, count == 2, let id, input[start] == UInt8(ascii: "$"),
          after < input.count, input[after] == UInt8(ascii: "*"),
          let (_, text) = input.line(from: start),
          UnsafeRawBufferPointer(rebasing: input[text..<after - 2]).place(of: 0x2d) != nil,
          (0x30...0x39).contains(input[text])
        {
          id(text..<after - 2)
        }
        end = after
      }
      return end
    default: throw LoadError("Redis: \(input.text(place..<lineEnd))")
    }
  }
}
