// SPDX-License-Identifier: Apache-2.0
import PenstockSystem
import PenstockTesting
import Synchronization
import Testing

/// A process's view of a disk: calls seen, left out, made the last, or made slow.
@Suite struct Processes {
  private let disk = SimulatedFileSystem()

  private func write(_ text: String, to file: any File) throws {
    try Array(text.utf8).withRaw { (raw) throws(SystemError) in try file.write(raw, at: 0) }
  }

  /// What is left of a file when everything pending is lost.
  private func durable(_ path: String) -> String? {
    struct Oldest: Chooser { mutating func choose(_ count: Int) -> Int { 0 } }
    var oldest = Oldest()
    return disk.crashed(choosing: &oldest).contents(of: path)
      .map { String(decoding: $0, as: UTF8.self) }
  }

  @Test func aCallThatIsLeftOutSucceedsAndDoesNothing() throws {
    let process = SimulatedProcess(disk) { _, call in call.kind == .sync ? .leftOut : .asAsked }
    let file = try process.open("/a", .create)
    try write("text", to: file)
    try file.sync()
    try process.syncDirectory("/")
    #expect(durable("/a") == "")
    try file.syncData()
    #expect(durable("/a") == "text")
  }

  @Test func errorsAreIgnoredOnDemand() throws {
    let process = SimulatedProcess(disk) { _, call in
      call.kind == .syncData ? .ignoringErrors : .asAsked
    }
    let file = try process.open("/a", .create)
    disk.inject(Fault([.syncData, .sync], isPermanent: true, errno: 5))
    try file.syncData()
    #expect(throws: SystemError.self) { try file.sync() }
  }

  @Test func theCallThatEndsAProcessIsNotMade() throws {
    let process = SimulatedProcess(disk) { process, call in
      if call.kind == .rename { process.end() }
      return .asAsked
    }
    let file = try process.open("/a", .create)
    #expect(throws: SystemError.self) { try process.rename("/a", to: "/b") }
    #expect(throws: SystemError.self) { try file.sync() }
    #expect(throws: SystemError.self) { _ = try process.list("/") }
    #expect(try disk.list("/") == ["a"])
  }

  @Test func callsNameAFileAsItIsCalledNow() throws {
    let seen = Mutex<[String]>([])
    let process = SimulatedProcess(disk) { _, call in
      seen.withLock { $0.append("\(call.kind.rawValue) \(call.path)") }
      return .asAsked
    }
    let file = try process.open("/a", .create)
    try process.rename("/a", to: "/b")
    try write("x", to: file)
    try process.rename("/b", to: "/c")
    try file.sync()
    #expect(
      seen.withLock { $0 } == [
        "open /a", "rename /a", "pwrite /b", "rename /b", "fsync /c",
      ])
  }

  /// Latency: a watch that lets simulated time pass.
  @Test func aDiskCanBeSlow() throws {
    let clock = SimulatedClock()
    let began = clock.monotonicNanoseconds()
    let process = SimulatedProcess(disk) { _, call in
      if call.kind == .sync { clock.advance(by: .milliseconds(40)) }
      return .asAsked
    }
    let file = try process.open("/a", .create)
    try file.sync()
    try file.sync()
    #expect(clock.monotonicNanoseconds() - began == 80_000_000)
  }
}
