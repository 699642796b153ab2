// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Penstock
import PenstockSystem

/// One closed-loop workload over an embedded store: each producer has one request under way.
struct Workload {
  enum Kind: String, CaseIterable {
    case send
    case cycle

    var title: String {
      switch self {
      case .send: "send"
      case .cycle: "cycle: send, receive, delete"
      }
    }
  }

  enum Selection: String, ExpressibleByArgument, CaseIterable {
    case send, cycle, all
    func includes(_ kind: Kind) -> Bool { self == .all || rawValue == kind.rawValue }
  }

  var kind: Kind
  var producers: Int
  var batch: Int
  var body: Int
  var seconds: Double

  func run(in path: String) async throws -> Measurement {
    let store = try await Store.open(at: path)
    let queue = try await store.queue("bench")
    let clock = RealClock()
    let entries = (0..<batch).map { index in
      let bytes = (0..<body).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ index) }
      return SendEntry(MessageContent(body: bytes))
    }
    // One round to warm up: the first segment is made, the first commit written.
    try await request(queue, entries)
    let start = clock.monotonicNanoseconds()
    let end = start + UInt64(seconds * 1e9)
    var total = try await withThrowingTaskGroup(of: Measurement.self) { group in
      for _ in 0..<producers {
        group.addTask {
          var measurement = Measurement()
          var now = clock.monotonicNanoseconds()
          while now < end {
            measurement.count += try await request(queue, entries)
            let after = clock.monotonicNanoseconds()
            measurement.latencies.append(after - now)
            now = after
          }
          return measurement
        }
      }
      var total = Measurement()
      for try await part in group {
        total.count += part.count
        total.latencies += part.latencies
      }
      return total
    }
    total.elapsed = clock.monotonicNanoseconds() - start
    total.finish()
    try await store.close()
    return total
  }

  /// Does one request and answers how many messages it moved.
  @discardableResult
  private func request(_ queue: Queue, _ entries: [SendEntry]) async throws -> Int {
    for result in try await queue.send(batch: entries) { _ = try result.get() }
    guard kind == .cycle else { return entries.count }
    var left = entries.count
    while left > 0 {
      let leases = try await queue.receive(maximum: left, wait: .seconds(10))
      guard !leases.isEmpty else { break }
      for result in try await queue.delete(leases.map(\.message.handle)) { try result.get() }
      left -= leases.count
    }
    return entries.count - left
  }
}
