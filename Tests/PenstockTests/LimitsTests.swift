// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockTesting
import Synchronization
import Testing

@Suite struct LimitsOfALog {
  /// A receive that could ask for more lease records than a segment takes gets fewer messages.
  @Test func aReceiveTakesNoMoreThanTheLogTakes() async throws {
    let bench = Bench(segmentSize: 65_536)
    let (store, queue) = try await bench.openWithQueue()
    for _ in 0..<90 {
      let entries = (0..<10).map { _ in SendEntry(MessageContent(body: [1])) }
      for result in try await queue.send(batch: entries) { _ = try result.get() }
    }
    let leases = try await queue.receive(maximum: 1000)
    #expect(leases.count > 100 && leases.count < 900)
    try await store.close()
  }

  /// What the host is told, it may look into: no callback runs under the store's lock.
  @Test func theLogCallbackMayUseTheStore() async throws {
    let disk = SimulatedFileSystem()
    var bench = Bench(disk)
    let opened = Opened()
    let lines = bench.lines
    bench.options.log = { line in
      _ = opened.store.withLock { $0 }?.lookup("q")
      lines.append(line)
    }
    let (store, queue) = try await bench.openWithQueue()
    opened.store.withLock { $0 = store }
    disk.capacity = 600 << 10
    while await code({ _ = try await queue.send([UInt8](repeating: 7, count: 3000)) }) == nil {}
    try await eventually { lines.contains("full") }
    disk.capacity = nil
    try await eventually { lines.contains("there is space again") }
    #expect(try await queue.describe().counts.visible > 0)
    opened.store.withLock { $0 = nil }
    try await store.close()
  }

  /// The report counts messages that are there, not places that a purge has yet to free.
  @Test func theReportOfAPurgedStoreCountsNothing() async throws {
    let bench = Bench()
    var (store, queue) = try await bench.openWithQueue()
    let entries = (0..<100).map { _ in SendEntry(MessageContent(body: [1])) }
    for result in try await queue.send(batch: entries) { _ = try result.get() }
    try await queue.purge()
    try await store.close()
    (store, queue) = try await bench.openWithQueue()
    #expect(store.recovery.messages == 0)
    #expect(store.recovery.queues == 1)
    try await store.close()
  }

  private final class Opened: Sendable {
    let store = Mutex<Store?>(nil)
  }
}
