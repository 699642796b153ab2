// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockTesting
import Testing

@Suite struct AFullDisk {
  private let body = [UInt8](repeating: 7, count: 3000)

  /// Sends until one is refused; how many were taken.
  private func fill(_ queue: Queue) async throws -> Int {
    var count = 0
    while true {
      do throws(PenstockError) {
        try await queue.send(body)
        count += 1
      } catch {
        #expect(error.code == .storeFull)
        #expect(error.family == .rejected)
        return count
      }
    }
  }

  @Test func refusesSendsAndCanBeDrained() async throws {
    let disk = SimulatedFileSystem()
    let bench = Bench(disk)
    var (store, queue) = try await bench.openWithQueue()
    disk.capacity = 600 << 10
    let sent = try await fill(queue)
    #expect(sent > 20)
    #expect(bench.lines.contains("full"))
    // A refused batch leaves nothing behind.
    let entry = SendEntry(MessageContent(body: body))
    #expect(
      await code { _ = try await queue.send(batch: [entry, entry]) } == .storeFull)
    #expect(try await queue.countsList == [sent, 0, 0])

    // Half is received and deleted, then the store is opened again on the full disk.
    var deleted = 0
    while deleted < sent / 2 {
      let leases = try await queue.receive(maximum: 10)
      for result in try await queue.delete(leases.map(\.message.handle)) { try result.get() }
      deleted += leases.count
    }
    #expect(try await queue.countsList == [sent - deleted, 0, 0])
    try await store.close()
    (store, queue) = try await bench.openWithQueue()
    #expect(try await queue.countsList == [sent - deleted, 0, 0])
    try await store.close()
  }

  @Test func takesSendsAgainWhenThereIsSpace() async throws {
    let disk = SimulatedFileSystem()
    let bench = Bench(disk)
    let (store, queue) = try await bench.openWithQueue()
    disk.capacity = 600 << 10
    let sent = try await fill(queue)
    disk.capacity = nil
    try await eventually { bench.lines.contains("there is space again: sends") }
    try await queue.send(body)
    #expect(try await queue.receive(maximum: 1000).count == sent + 1)
    try await store.close()
  }

  /// The first segment cannot be prepared: nothing can be written at all, not even a lease.
  @Test func withoutAnyRoomReceivesSaySo() async throws {
    let disk = SimulatedFileSystem()
    let bench = Bench(disk)
    var (store, queue) = try await bench.openWithQueue()
    try await queue.send("x")
    try await store.close()
    for name in try disk.list("/store") where name.hasSuffix(".next") {
      disk.erase("/store/\(name)")
    }
    disk.capacity = disk.used
    (store, queue) = try await bench.openWithQueue()
    #expect(await queue.startReceive(wait: .zero).code == .storeFull)
    #expect(await queue.startReceive(wait: .seconds(20)).code == .storeFull)
    #expect(await queue.startSend("y").code == .storeFull)
    disk.capacity = nil
    try await eventually { bench.lines.contains("there is space again: sends") }
    #expect(try await queue.receive().map(\.text) == ["x"])
    try await store.close()
  }
}
