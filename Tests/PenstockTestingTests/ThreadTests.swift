// SPDX-License-Identifier: Apache-2.0
import PenstockSystem
import Synchronization
import Testing

@Suite struct Doorbells {
  @Test func aRingBeforeTheWaitIsKeptOnce() {
    let bell = Doorbell()
    bell.ring()
    bell.ring()
    bell.wait()
    #expect(!bell.wait(nanoseconds: 1))
    bell.ring()
    #expect(bell.wait(nanoseconds: .max))
  }

  @Test func aWaitEndsWithItsTime() {
    let bell = Doorbell()
    let clock = ContinuousClock()
    let time = clock.measure { #expect(!bell.wait(nanoseconds: 20_000_000)) }
    #expect(time >= .milliseconds(20))
    #expect(!bell.wait(nanoseconds: 0))
  }

  /// Two threads answer each other; a lost ring would hang the test.
  @Test(.timeLimit(.minutes(1))) func noRingIsLost() throws {
    let ping = Doorbell()
    let pong = Doorbell()
    let rounds = 5000
    let thread = try SystemThread(name: "answer") {
      for round in 0..<rounds {
        if round % 2 == 0 { ping.wait() } else { _ = ping.wait(nanoseconds: .max) }
        pong.ring()
      }
    }
    for _ in 0..<rounds {
      ping.ring()
      pong.wait()
    }
    thread.join()
    #expect(!ping.wait(nanoseconds: 0) && !pong.wait(nanoseconds: 0))
  }

  /// Work of several ringers is always seen by one of two waiters.
  @Test(.timeLimit(.minutes(1))) func severalThreadsShareABell() throws {
    let bell = Doorbell()
    let left = Atomic<Int>(0)
    let done = Atomic<Int>(0)
    let total = 4000
    let waiters = try (0..<2).map { _ in
      try SystemThread(name: "waiter") {
        while done.load(ordering: .relaxed) < total {
          bell.wait()
          done.add(left.exchange(0, ordering: .relaxed), ordering: .relaxed)
        }
        bell.ring()  // The other waiter must see the end, too.
      }
    }
    let ringers = try (0..<2).map { _ in
      try SystemThread(name: "ringer") {
        for _ in 0..<total / 2 {
          left.add(1, ordering: .relaxed)
          bell.ring()
        }
      }
    }
    for thread in ringers + waiters { thread.join() }
    #expect(done.load(ordering: .relaxed) == total)
  }
}

@Suite struct SystemThreads {
  @Test func joinWaitsForTheEnd() throws {
    let value = Mutex(0)
    let thread = try SystemThread(name: "a name longer than fifteen bytes") {
      for _ in 0..<1000 { value.withLock { $0 += 1 } }
    }
    thread.join()
    thread.join()
    #expect(value.withLock { $0 } == 1000)
  }

  @Test func aDroppedThreadRunsOn() throws {
    let bell = Doorbell()
    let start = Doorbell()
    do {
      _ = try SystemThread(name: "dropped") {
        start.wait()
        bell.ring()
      }
    }
    start.ring()
    bell.wait()
  }
}
