// SPDX-License-Identifier: Apache-2.0
import PenstockSystem
import Synchronization
import Testing

@testable import penstock

@Suite struct ScheduleTests {
  @Test func lanesTakeTurnsAtEqualDistances() {
    let schedule = Schedule(start: 1000, rate: 1_000_000, lanes: 4)
    let due = (0..<3).flatMap { number in (0..<4).map { schedule.due(number, lane: $0) } }
    #expect(due == (0..<12).map { 1000 + $0 * 1000 })
  }

  @Test func aRateThatDividesNothingDoesNotDrift() {
    let schedule = Schedule(start: 0, rate: 3, lanes: 1)
    #expect(schedule.due(1, lane: 0) == 333_333_333)
    #expect(schedule.due(3_000_000, lane: 0) == 1_000_000_000_000_000)
  }

  /// What is due already is done at once, by who asks; the thread has passed it and wakes nobody.
  @Test func whatIsDueWaitsForNothing() {
    let now = RealClock().monotonicNanoseconds()
    let pacer = Pacer(Schedule(start: now, rate: 1, lanes: 1))
    let woken = Mutex(0)
    pacer.wait(0, lane: 0) { woken.withLock { $0 += 1 } }
    #expect(woken.withLock { $0 } == 1)
  }

  @Test func eachRequestIsMadeOnceAndNotBeforeItIsDue() throws {
    let clock = RealClock()
    let schedule = Schedule(start: clock.monotonicNanoseconds(), rate: 2000, lanes: 3)
    let pacer = Pacer(schedule)
    let thread = try pacer.run()
    let early = Mutex(0)
    let bells = (0..<3).map { _ in Doorbell() }
    for number in 0..<20 {
      for lane in 0..<3 {
        pacer.wait(number, lane: lane) {
          if clock.monotonicNanoseconds() < schedule.due(number, lane: lane) {
            early.withLock { $0 += 1 }
          }
          bells[lane].ring()
        }
      }
      for bell in bells { bell.wait() }
    }
    pacer.stop()
    thread.join()
    #expect(early.withLock { $0 } == 0)
  }

  @Test func whoWaitsIsWokenAtTheEnd() throws {
    let pacer = Pacer(
      Schedule(start: RealClock().monotonicNanoseconds(), rate: 1e-3, lanes: 1))
    let thread = try pacer.run()
    let bell = Doorbell()
    pacer.wait(5, lane: 0) { bell.ring() }
    pacer.stop()
    thread.join()
    bell.wait()
  }

  @Test func measurementsOfLanesAddUp() {
    var (one, other) = (Measurement(), Measurement())
    one.record(2, from: 100, to: 1_500_000_000, since: 0)
    other.record(3, from: 200, to: 400_000_000, since: 0)
    one.add(other)
    #expect(one.count == 5)
    #expect(one.perSecond == [3, 2])
    #expect(one.elapsed == 1_500_000_000)
    #expect(one.latencies.count == 2)
    let twice = one.joined(one)
    #expect(twice.elapsed == 3_000_000_000)
    #expect(twice.perSecond == [3, 2, 3, 2])
  }
}
