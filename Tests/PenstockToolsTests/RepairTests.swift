// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockSystem
import PenstockTesting
import PenstockTools
import Testing

@Suite struct Repairing {
  /// Damages the newest segment of a store whose run died, repairs it, and opens it.
  @Test(arguments: [0, 1, 2, 3, 4, 5, 6, 7, 8])
  func acknowledgedDamageInTheNewestSegmentIsCutAndSaid(_ frame: Int) async throws {
    let sample = try Sample.make(closes: false)
    let name = try #require(try sample.segments.last)
    sample.disk.flipBit((4096 + frame * 4096 + 70) * 8, in: sample.path(name))
    let damaged = sample.disk.contents(of: sample.path(name))
    guard try sample.refusal() != nil else {
      // The last frames have no witness: an opening drops them, and there is nothing to repair.
      #expect(try Repair(sample.context).run(applies: true).actions.isEmpty)
      return
    }
    let plan = try Repair(sample.context).run(applies: false)
    #expect(plan.refused.isEmpty)
    // Checkpoints that reach behind the damage go first.
    let action = try #require(plan.actions.last)
    #expect(action.file == name)
    #expect(plan.actions.dropLast().allSatisfy { $0.file.hasSuffix(".checkpoint") })
    #expect(action.givenUp != nil)
    #expect(sample.disk.contents(of: sample.path(name)) == damaged)

    let done = try Repair(sample.context).run(applies: true)
    #expect(done.isApplied)
    #expect(done.actions.last?.givenUp == action.givenUp)
    #expect(sample.disk.contents(of: sample.path(action.evidence)) == damaged)
    #expect(try Verify(sample.context).run().isSound)
    #expect(try sample.refusal() == nil)
    #expect(try Repair(sample.context).run(applies: true).actions.isEmpty)

    // The store goes on behind the gap and shows no unknown file.
    let store = try await Store.open(
      at: Sample.directory, options: Sample.options,
      environment: Sample.environment(sample.disk))
    #expect(store.recovery.unknownFiles.isEmpty)
    #expect(store.lastLSN > action.givenUp?.upperBound ?? .max)
    try await store.queue("orders").send("again")
    try await store.close()
    #expect(try Verify(sample.context).run().isSound)
  }

  @Test(arguments: ["missing", "damaged", "foreign"])
  func headIsWrittenAnew(_ how: String) async throws {
    let sample = try Sample.make()
    let before = sample.disk.contents(of: sample.path("HEAD"))
    switch how {
    case "missing": sample.disk.erase(sample.path("HEAD"))
    case "damaged": sample.change("HEAD") { $0 = [UInt8](repeating: 9, count: $0.count) }
    default:
      let other = SimulatedFileSystem()
      let environment = StoreEnvironment(
        fileSystem: other, clock: SimulatedClock(), random: StableRandom(seed: 6))
      let store = try Store.openBlocking(
        at: Sample.directory, options: Sample.options, environment: environment)
      try await store.close()
      let head = try #require(other.contents(of: sample.path("HEAD")))
      sample.disk.replace(sample.path("HEAD"), with: head)
    }
    #expect(before != nil)
    #expect(try sample.refusal() != nil)
    #expect(try !Verify(sample.context).run().isSound)
    let report = try Repair(sample.context).run(applies: true)
    #expect(report.actions.map(\.file) == ["HEAD"])
    #expect(report.isApplied)
    #expect(try sample.refusal() == nil)
    let isKept = sample.disk.contents(of: sample.path("HEAD.set-aside-1")) != nil
    #expect(isKept == (how != "missing"))
  }

  @Test func damageThatNoRepairMendsIsLeftAloneAndSaid() throws {
    let sample = try Sample.make()
    let name = try sample.segments[1]
    sample.disk.flipBit(60 * 8, in: sample.path(name))
    sample.disk.erase(sample.path("HEAD"))
    let before = try sample.image()
    let report = try Repair(sample.context).run(applies: true)
    #expect(!report.isApplied)
    #expect(!report.refused.isEmpty)
    #expect(try sample.image() == before)
  }

  /// Damaged bytes of messages keep no store from opening, and so no repair from its work.
  @Test func damageThatAStoreOpensWithIsLeftAndTheRestIsRepaired() throws {
    let sample = try Sample.make()
    let name = try sample.segments[0]
    sample.disk.flipBit((4096 + 70) * 8, in: sample.path(name))
    try #require(try sample.refusal() == nil)
    sample.disk.erase(sample.path("HEAD"))
    try #require(try sample.refusal() != nil)
    let report = try Repair(sample.context).run(applies: true)
    #expect(report.isApplied)
    #expect(report.actions.map(\.file) == ["HEAD"])
    #expect(report.left.map(\.file) == [name])
    #expect(try sample.refusal() == nil)
  }

  /// Derived files are taken out of use under another name, and the store goes on without them.
  @Test func aDamagedCheckpointAndIndexAreSetAside() async throws {
    let sample = try Sample.make()
    let files = try sample.files
    let names = try [".checkpoint", ".index"].map { suffix in
      try #require(files.last { $0.hasSuffix(suffix) })
    }
    for name in names { sample.disk.flipBit(50 * 8, in: sample.path(name)) }
    let before = names.map { sample.disk.contents(of: sample.path($0)) }
    #expect(try !Verify(sample.context).run().isSound)
    let report = try Repair(sample.context).run(applies: true)
    #expect(report.isApplied)
    #expect(Set(report.actions.map(\.file)) == Set(names))
    #expect(report.actions.allSatisfy { $0.givenUp == nil })
    let after = names.map { sample.disk.contents(of: sample.path($0 + ".set-aside-1")) }
    #expect(after == before)
    #expect(try Verify(sample.context).run().isSound)
    // Without threads, which might compact.
    let (store, _) = try Store.openDriven(
      at: Sample.directory, options: Sample.options,
      environment: Sample.environment(sample.disk))
    #expect(store.stateHash == sample.stateHash)
    #expect(store.recovery.unknownFiles.isEmpty)
  }

  @Test func aStoreInUseIsRefused() async throws {
    let disk = SimulatedFileSystem()
    let store = try Store.openBlocking(
      at: Sample.directory, options: Sample.options, environment: Sample.environment(disk))
    let error = #expect(throws: ToolError.self) {
      try Repair(Sample.context(disk)).run(applies: false)
    }
    #expect(error?.description.contains("in use") == true)
    try await store.close()
  }

  /// A crash in any call of a repair leaves a store that the next repair finishes, with the damaged
  /// bytes kept.
  @Test func aCrashInARepairIsRepaired() async throws {
    let sample = try Sample.make(closes: false)
    let name = try #require(try sample.segments.last)
    sample.disk.flipBit((4096 + 4096 + 70) * 8, in: sample.path(name))
    sample.disk.erase(sample.path("HEAD"))
    try sample.settle()
    let damaged = sample.disk.contents(of: sample.path(name))
    for call in 1... {
      let attempt = sample.copy()
      attempt.disk.inject(Fault(after: call - 1, isPermanent: true, errno: 5))
      var isThrough = false
      do {
        isThrough = try Repair(attempt.context).run(applies: true).isApplied
      } catch {}
      attempt.disk.clearFaults()
      var chooser = SeededChooser(seed: UInt64(call))
      attempt.disk.crash(choosing: &chooser)
      let end = try Repair(attempt.context).run(applies: true)
      #expect(end.refused.isEmpty, "after call \(call)")
      #expect(try attempt.refusal() == nil, "after call \(call)")
      let copies = try attempt.files.filter { $0.hasPrefix(name + ".set-aside-") }
      #expect(copies.contains { attempt.disk.contents(of: attempt.path($0)) == damaged })
      if isThrough { break }
    }
  }
}
