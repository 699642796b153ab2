// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockTesting
import Testing

private let hour: Duration = .seconds(3600)
private let day: Duration = .seconds(86_400)

extension SimulatedClock {
  /// Sets the wall clock forward, or back, as somebody would while the store is closed.
  fileprivate func shift(_ duration: Duration) {
    setWall(milliseconds: wallMilliseconds() + duration.components.seconds * 1000)
  }
}

@Suite struct AClockThatWasSetBackBetweenRuns {
  @Test(arguments: [Duration.seconds(1), .seconds(6 * 3600), .seconds(365 * 86_400)])
  func leasesDelaysWindowsAndRetentionGoOn(_ back: Duration) async throws {
    let bench = Bench()
    var (store, queue) = try await bench.openWithQueue()
    try await queue.change(.init { $0.retention = .seconds(100) })
    var fifo = try await store.queue("f", .init(isFIFO: true))
    try await queue.send("leased")
    try await queue.send("delayed", delay: .seconds(40))
    let first = try await fifo.send("x", group: "g", deduplicationID: "1")
    _ = try await queue.receive(visibilityTimeout: .seconds(30))
    bench.pass(.seconds(10), store)
    // A record tells the time of its moment.
    _ = try await store.queue("other")
    let before = store.now
    try await store.close()

    bench.simulatedClock.shift(.zero - back)
    store = try await bench.open()
    queue = try #require(store.existingQueue("q"))
    fifo = try #require(store.existingQueue("f"))
    #expect(store.now == before)
    #expect(store.recovery.clockJump == .zero - back)
    #expect(store.recovery.description.contains("\(back.components.seconds) seconds behind"))
    #expect(try await queue.countsList == [0, 1, 1])
    #expect(try await fifo.send("y", group: "g", deduplicationID: "1") == first)

    let answer = queue.startReceive(2, visibilityTimeout: .seconds(5))
    bench.pass(.seconds(19), store)
    #expect(!answer.isThere)
    bench.pass(.seconds(1), store)
    #expect(try await answer.value.texts == ["leased"])
    bench.pass(.seconds(10), store)
    #expect(try await queue.countsList == [2, 0, 0])
    // Retention began with the sends, 40 seconds of the store's time ago.
    bench.pass(.seconds(59), store)
    #expect(try await queue.counts.total == 2)
    bench.pass(.seconds(2), store)
    try await eventually { try await queue.counts.total == 0 }
    // The window of five minutes, counted from the first send.
    bench.pass(.seconds(201), store)
    #expect(try await fifo.send("z", group: "g", deduplicationID: "1") != first)
    try await store.close()
  }

  /// The first run's clock was a year ahead, and was then corrected.
  @Test func whatARunWithAClockFarAheadLeftIsNotStuck() async throws {
    let bench = Bench()
    bench.simulatedClock.shift(day * 365)
    var (store, queue) = try await bench.openWithQueue()
    try await queue.send("a")
    try await queue.send("b")
    _ = try await queue.receive(visibilityTimeout: .seconds(30))
    let ahead = store.now
    try await store.close()

    for _ in 0..<3 {
      bench.simulatedClock.shift(.zero - day * 100)
      (store, queue) = try await bench.openWithQueue()
      #expect(store.now == ahead)
      // No deadline is further away than its timeout: it counts from a record, and so does time.
      #expect(try await queue.countsList == [1, 1, 0])
      try await store.close()
    }
    (store, queue) = try await bench.openWithQueue()
    bench.pass(.seconds(30), store)
    #expect(try await queue.countsList == [2, 0, 0])
    try await queue.send("c")
    let leases = try await queue.receive(maximum: 3)
    #expect(leases.map(\.text) == ["a", "b", "c"])
    let times = leases.map(\.message.sentAt)
    #expect(times == [ahead, ahead, Timestamp(milliseconds: ahead.milliseconds + 30_000)])
    // Retention counts the time in which the store was open, four days here.
    bench.pass(day * 4, store)
    try await eventually { try await queue.counts.total <= 1 }
    bench.pass(.seconds(31), store)
    try await eventually { try await queue.counts.total == 0 }
    // Once the machine's clock has caught up time is the machine's again.
    try await store.close()
    bench.simulatedClock.shift(day * 400)
    (store, queue) = try await bench.openWithQueue()
    #expect(store.now.milliseconds == bench.simulatedClock.wallMilliseconds())
    try await store.close()
  }
}

@Suite struct AClockThatWasSetForwardBetweenRuns {
  /// A year ahead no message is expired by a clock that may be wrong, and a right clock finds all.
  @Test(arguments: Disk.allCases) func isRefusedWhereItWouldCostMessages(
    disk: Disk
  ) async throws {
    try await Bench.on(disk) { bench in
      var (store, queue) = try await bench.openWithQueue()
      for text in ["a", "b"] { try await queue.send(text) }
      let hash = store.stateHash
      try await store.close()

      bench.simulatedClock.shift(day * 365)
      for _ in 0..<2 {
        do throws(PenstockError) {
          _ = try await bench.open()
          Issue.record("the store was opened")
        } catch {
          #expect(error.code == .clockJumped)
          #expect(error.family == .rejected)
          #expect(error.message.contains("365 days"))
          #expect(error.message.contains("2 messages"))
        }
      }
      bench.simulatedClock.shift(.zero - day * 365)
      (store, queue) = try await bench.openWithQueue()
      #expect(store.stateHash == hash)
      #expect(try await queue.receive(maximum: 3).map(\.text) == ["a", "b"])
      try await store.close()
    }
  }

  @Test func isTakenWhenTheHostSaysSo() async throws {
    var bench = Bench()
    var (store, queue) = try await bench.openWithQueue()
    try await queue.send("a")
    try await store.close()
    bench.simulatedClock.shift(day * 365)
    bench.options.maximumClockJump = nil
    (store, queue) = try await bench.openWithQueue()
    #expect(store.recovery.clockJump == day * 365)
    try await eventually { try await queue.counts.total == 0 }
    #expect(try queue.metrics().traffic.expired == 1)
    try await store.close()
  }

  @Test func isTakenWhenItCostsNothing() async throws {
    let bench = Bench()
    var (store, queue) = try await bench.openWithQueue()
    try await queue.send("gone")
    for lease in try await queue.receive() { try await lease.delete() }
    let longer = try await store.queue("longer", .init(retention: day * 500))
    try await longer.send("kept")
    _ = try await longer.receive(visibilityTimeout: hour)
    try await store.close()
    bench.simulatedClock.shift(day * 365)
    store = try await bench.open()
    queue = try #require(store.existingQueue("longer"))
    // Its lease has ended meanwhile.
    #expect(try await queue.receive().map(\.text) == ["kept"])
    try await store.close()
  }

  @Test func aRestOfSomeMonthsEndsRetentionAsUsual() async throws {
    let bench = Bench()
    var (store, queue) = try await bench.openWithQueue()
    try await queue.send("a")
    try await store.close()
    bench.simulatedClock.advance(by: day * 120)
    (store, queue) = try await bench.openWithQueue()
    #expect(store.recovery.clockJump == day * 120)
    try await eventually { try await queue.counts.total == 0 }
    try await store.close()
  }
}
