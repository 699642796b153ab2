// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Penstock
import PenstockSystem
import Synchronization

/// One closed-loop workload over an embedded store: each producer has one request under way.
struct Workload {
  enum Kind: String, CaseIterable {
    /// `await`, one task per producer.
    case send
    /// The same through completions: no hop to a task and back.
    case sendByCompletion
    case cycle

    var title: String {
      switch self {
      case .send: "send, awaited"
      case .sendByCompletion: "send, by completion"
      case .cycle: "cycle: send, receive, delete"
      }
    }
  }

  enum Selection: String, ExpressibleByArgument, CaseIterable {
    case send, cycle, all
    func includes(_ kind: Kind) -> Bool {
      switch self {
      case .all: true
      case .send: kind != .cycle
      case .cycle: kind == .cycle
      }
    }
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
          if kind == .sendByCompletion {
            return try await CompletionProducer(store, queue, entries, until: end).run()
          }
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

/// A producer that sends the next request from the completion of the one before.
private final class CompletionProducer: Sendable {
  private let store: Store
  private let queue: Queue
  private let entries: [SendEntry]
  private let end: UInt64
  private let clock = RealClock()
  private let measurement = Mutex(Measurement())

  init(_ store: Store, _ queue: Queue, _ entries: [SendEntry], until end: UInt64) {
    self.store = store
    self.queue = queue
    self.entries = entries
    self.end = end
  }

  func run() async throws -> Measurement {
    try await withCheckedThrowingContinuation { send($0) }
    return measurement.withLock { $0 }
  }

  private func send(_ whenDone: CheckedContinuation<Void, any Error>) {
    let began = clock.monotonicNanoseconds()
    guard began < end else { return whenDone.resume() }
    store.send(entries, to: queue.id) { result in
      do {
        for sent in try result.get() { _ = try sent.get() }
      } catch {
        return whenDone.resume(throwing: error)
      }
      let took = self.clock.monotonicNanoseconds() - began
      self.measurement.withLock {
        $0.count += self.entries.count
        $0.latencies.append(took)
      }
      self.send(whenDone)
    }
  }
}
