// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockSystem
import Synchronization

/// The engine in this process: each producer makes its next request from the completion of the one
/// before.
struct EmbeddedPeer: PeerSystem {
  let name = "penstock"
  let durability = "fdatasync before the completion; leases written, not synced"
  var directory: String
  var body: Int

  func run(_ work: PeerWork, queue: String, _ plan: LoadPlan) async throws -> Measurement? {
    let path = "\(directory)/\(queue).store"
    let store = try await Store.open(at: path)
    defer { removeTree(path) }
    let content = MessageContent(body: [UInt8](repeating: 0x78, count: body))
    let entries = [SendEntry](repeating: SendEntry(content), count: work.batch)
    let target = try await store.queue(queue)
    let clock = RealClock()
    let start = clock.monotonicNanoseconds() + UInt64(plan.warmUp * 1e9)
    let end = start + UInt64(plan.seconds * 1e9)
    let counter = RoundCounter(plan.rounds)
    let result = try await withThrowingTaskGroup(of: Measurement.self) { group in
      for _ in 0..<work.producers {
        group.addTask {
          try await EmbeddedProducer(
            store, target.id, entries, work, start..<end, counter
          ).run()
        }
      }
      var total = Measurement()
      for try await part in group { total.add(part) }
      return total
    }
    try await store.close()
    return result
  }
}

private final class EmbeddedProducer: Sendable {
  private let store: Store
  private let queue: QueueID
  private let entries: [SendEntry]
  private let work: PeerWork
  private let time: Range<UInt64>
  private let counter: RoundCounter
  private let clock = RealClock()
  private let result = Mutex(Measurement())

  typealias Done = CheckedContinuation<Void, any Error>

  init(
    _ store: Store, _ queue: QueueID, _ entries: [SendEntry], _ work: PeerWork,
    _ time: Range<UInt64>, _ counter: RoundCounter
  ) {
    (self.store, self.queue, self.entries, self.work) = (store, queue, entries, work)
    (self.time, self.counter) = (time, counter)
  }

  func run() async throws -> Measurement {
    try await withCheckedThrowingContinuation { send($0) }
    return result.withLock { $0 }
  }

  private func send(_ done: Done) {
    let began = clock.monotonicNanoseconds()
    guard began < time.upperBound, counter.takes() else { return done.resume() }
    store.send(entries, to: queue) { sent in
      do { for one in try sent.get() { _ = try one.get() } } catch {
        return done.resume(throwing: error)
      }
      if self.work.cycles {
        self.receive(self.entries.count, began, done)
      } else {
        self.ended(began, done)
      }
    }
  }

  private func receive(_ left: Int, _ began: UInt64, _ done: Done) {
    let request = ReceiveRequest(maximumMessages: left, wait: .seconds(10))
    store.receive(request, from: queue) { received in
      let handles: [LeaseHandle]
      do { handles = try received.get().map(\.handle) } catch {
        return done.resume(throwing: error)
      }
      guard !handles.isEmpty else {
        return done.resume(throwing: LoadError("nothing was received"))
      }
      self.store.delete(handles, from: self.queue) { deleted in
        do { for one in try deleted.get() { try one.get() } } catch {
          return done.resume(throwing: error)
        }
        if left > handles.count {
          self.receive(left - handles.count, began, done)
        } else {
          self.ended(began, done)
        }
      }
    }
  }

  private func ended(_ began: UInt64, _ done: Done) {
    let now = clock.monotonicNanoseconds()
    if began >= time.lowerBound {
      result.withLock {
        $0.record(entries.count, from: began, to: now, since: time.lowerBound)
      }
    }
    send(done)
  }
}
