// SPDX-License-Identifier: Apache-2.0
import PenstockSystem
import PenstockTesting
import Synchronization
import Testing

/// A whole async program is a function of the executor's seed.
@Suite struct SeededExecutorTests {
  private actor Register {
    var entries: [String] = []
    func add(_ entry: String) { entries.append(entry) }
    func addSlowly(_ entry: String) async {
      entries.append("\(entry) begins")
      await Task.yield()
      entries.append("\(entry) ends")
    }
  }

  @concurrent private static func elsewhere(_ register: Register) async {
    await Task.yield()
    await register.add("concurrent")
  }

  /// Task groups, `async let`, an actor and a concurrent function; what they did, in order.
  private static func history(seed: UInt64) -> (entries: [String], isForeign: Bool) {
    let executor = SeededExecutor(seed: seed)
    let result = Mutex<[String]>([])
    Task(executorPreference: executor) {
      let register = Register()
      async let one: Void = register.addSlowly("one")
      async let two: Void = elsewhere(register)
      await withTaskGroup(of: Void.self) { group in
        for number in 0..<5 { group.addTask { await register.addSlowly("\(number)") } }
      }
      _ = await (one, two)
      let entries = await register.entries
      result.withLock { $0 = entries }
    }
    executor.drain()
    return (result.withLock { $0 }, executor.hasForeignJobs)
  }

  @Test func oneSeedTakesOneWayAndSeedsTakeMany() {
    var ways: Set<[String]> = []
    for seed in 1...40 as ClosedRange<UInt64> {
      let first = Self.history(seed: seed)
      #expect(first.entries.count == 13)
      #expect(!first.isForeign)
      #expect(first.entries == Self.history(seed: seed).entries)
      ways.insert(first.entries)
    }
    #expect(ways.count > 30)
  }

  @Test func aJobFromAnotherThreadIsNoticed() throws {
    let executor = SeededExecutor(seed: 1)
    Task(executorPreference: executor) {
      do throws(SystemError) {
        let other = try SystemThread(name: "other") { Task(executorPreference: executor) {} }
        other.join()
      } catch { Issue.record(error) }
    }
    #expect(!executor.hasForeignJobs)
    #expect(executor.drain() == 2)
    #expect(executor.hasForeignJobs)
  }
}
