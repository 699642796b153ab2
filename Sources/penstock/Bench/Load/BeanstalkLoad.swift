// SPDX-License-Identifier: Apache-2.0

/// beanstalkd: put; reserve-with-timeout; delete. Batches are pipelined: it has no other.
final class BeanstalkLoad: LoadProtocol {
  private enum Step { case greet, put, reserve, delete }

  private let role: PeerRole
  private let queue: String
  private let work: PeerWork
  private let puts: [UInt8]
  private var step = Step.greet
  /// Answers that are to come.
  private var awaited = 0
  /// Messages of the round that are not deleted yet.
  private var left = 0
  private var jobs: [[UInt8]] = []

  init(_ role: PeerRole, _ queue: String, _ work: PeerWork, _ body: [UInt8]) {
    (self.role, self.queue, self.work) = (role, queue, work)
    let put = Array("put 0 0 120 \(body.count)\r\n".utf8) + body + [0x0d, 0x0a]
    puts = Array([[UInt8]](repeating: put, count: work.batch).joined())
  }

  func connected(_ output: inout LoadOutput) -> Bool {
    // A tube is there as soon as it is used. It cannot be removed with what is in it.
    guard role == .work else { return true }
    output.put("use \(queue)\r\nwatch \(queue)\r\n")
    awaited = 2
    return false
  }

  func begin(_ output: inout LoadOutput) {
    step = .put
    awaited = work.batch
    left = work.batch
    output.put(puts)
  }

  func read(_ input: UnsafeRawBufferPointer, _ output: inout LoadOutput) throws -> LoadAnswer {
    guard var (end, used) = input.line() else { return .partial }
    switch step {
    case .greet where input.has("USING ") || input.has("WATCHING "): break
    case .put where input.has("INSERTED "): break
    case .delete where input.has("DELETED"): left -= 1
    case .reserve where input.has("TIMED_OUT"): break
    case .reserve where input.has("RESERVED "):
      guard let (_, idEnd) = input.number(at: 9), let (size, _) = input.number(at: idEnd) else {
        throw LoadError("beanstalkd: \(input.text(0..<end))")
      }
      used += size + 2
      guard used <= input.count else { return .partial }
      jobs.append(Array(input[9..<idEnd]))
    default:
      end = min(end, 200)
      throw LoadError("beanstalkd: \(input.text(0..<end))")
    }
    awaited -= 1
    guard awaited == 0 else { return .taken(used) }
    switch step {
    case .greet: return .ended(used, messages: 0)
    case .put:
      if !work.cycles { return .ended(used, messages: work.batch) }
      reserve(&output)
    case .reserve:
      if jobs.isEmpty { reserve(&output) } else { delete(&output) }
    case .delete:
      if left == 0 { return .ended(used, messages: work.batch) }
      reserve(&output)
    }
    return .taken(used)
  }

  private func reserve(_ output: inout LoadOutput) {
    step = .reserve
    awaited = left
    output.put(String(repeating: "reserve-with-timeout 0\r\n", count: left))
  }

  private func delete(_ output: inout LoadOutput) {
    step = .delete
    awaited = jobs.count
    output.put(Array(jobs.map { Array("delete ".utf8) + $0 + [0x0d, 0x0a] }.joined()))
    jobs = []
  }
}
