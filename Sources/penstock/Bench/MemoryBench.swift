// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation
import Penstock
import PenstockSystem

/// `penstock bench memory`: what messages, groups and leases take of it.
struct MemoryBench: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "memory",
    abstract: "Measure the memory of a message, a group and a lease of a FIFO queue.")

  @Option(name: .long, help: "Directory to work in; a new one inside it is used and removed.")
  var directory = "."

  @Option(name: .long, help: "Messages, each in a group of its own or all in one.")
  var messages = 1_000_000

  @Option(name: .long, help: "Bytes in a message body.")
  var body = 100

  func validate() throws {
    guard (200...10_000_000).contains(messages) else {
      throw ValidationError("--messages must be from 200 to 10000000.")
    }
    guard (1...65_536).contains(body) else {
      throw ValidationError("--body must be from 1 to 65536 bytes.")
    }
  }

  func run() async throws {
    let root = "\(directory)/penstock-bench-\(SystemRandom().next())"
    try PosixFileSystem().createDirectory(root)
    defer { removeTree(root) }
    print("machine     \(Machine.description)")
    print("body        \(body) bytes; \(messages) messages")
    print("")
    try measure(in: root)
  }

  private func measure(in root: String) throws {
    print(pad("memory of", 34) + lead("allocated", 11) + lead("resident", 10))
    func row(_ name: String, _ part: (String) -> Double) {
      print(
        pad(name, 34) + lead(tenths(part("allocated")), 11) + lead(tenths(part("resident")), 10))
    }
    let waiting = try step("group", messages, "\(root)/group")
    removeTree("\(root)/group")
    row("a waiting message of one group") { waiting["sent-\($0)"] ?? 0 }
    let groups = try step("groups", messages, "\(root)/groups")
    removeTree("\(root)/groups")
    row("a group, beside its message") {
      (groups["sent-\($0)"] ?? 0) - (waiting["sent-\($0)"] ?? 0)
    }
    row("a lease, beside those") { groups["leased-\($0)"] ?? 0 }
    print("")
    print(
      """
      Bytes of each: the growth from one half of \(messages) to all of them, so what does not grow
      with them, as the buffers of the log, is not in it. "allocated" is what the allocator counts
      as in use, with its own headers; "resident" are pages of the process, after what is free was
      given back to the system.
      """)
  }

  /// Runs a step in a process of its own, and reads the numbers that it prints.
  private func step(_ kind: String, _ count: Int, _ path: String) throws -> [String: Double] {
    try BacklogBench.runStep(
      ["bench", "memory-step", kind, path, "--count", "\(count)", "--body", "\(body)"])
  }
}

/// One process of the measurement of memory; prints a name and a number a line.
struct MemoryStep: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "memory-step", abstract: "A part of memory.", shouldDisplay: false)

  enum Kind: String, ExpressibleByArgument, CaseIterable { case group, groups }

  @Argument var kind: Kind
  @Argument var path: String
  @Option(name: .long) var count = 1000
  @Option(name: .long) var body = 100

  func run() async throws {
    var options = StoreOptions()
    options.durability = .written
    let store = try await Store.open(at: path, options: options)
    let queue = try await store.queue("large.fifo", QueueSettings(isFIFO: true))
    try await grow("sent") {
      try await queue.fill($0, body: body) { kind == .group ? "g" : "g\($0)" }
    }
    if kind == .groups { try await grow("leased") { try await queue.lease($0.count) } }
    print("done 1")
    try await store.close()
  }

  /// Does something for one half of all and then for the other, and prints what that one took.
  private func grow(_ name: String, _ act: (Range<Int>) async throws -> Void) async throws {
    try await act(0..<count / 2)
    let half = await settled()
    try await act(count / 2..<count)
    let all = await settled()
    let number = Double(count - count / 2)
    print("\(name)-allocated \((all.allocated - half.allocated) / number)")
    print("\(name)-resident \((all.resident - half.resident) / number)")
  }

  /// Bytes in use, and bytes that are resident once what is free was given back: the least of a few
  /// looks, as a checkpoint that is being written holds parts of the state twice.
  private func settled() async -> (allocated: Double, resident: Double) {
    var least = (allocated: Double.infinity, resident: Double.infinity)
    for _ in 0..<(count < 100_000 ? 2 : 15) {
      await RealClock().sleep(.milliseconds(100))
      Self.giveBackFreeMemory()
      least.allocated = min(least.allocated, Self.allocatedBytes())
      least.resident = min(least.resident, BacklogStep.residentMebibytes() * 1_048_576)
    }
    return least
  }

  // What follows is not among what Swift sees of the C library.

  static func giveBackFreeMemory() {
    #if canImport(Glibc)
      typealias Trim = @convention(c) (Int) -> CInt
      guard let symbol = dlsym(nil, "malloc_trim") else { return }
      _ = unsafeBitCast(symbol, to: Trim.self)(0)
    #endif
  }

  /// 0 where the system does not tell.
  private static func allocatedBytes() -> Double {
    #if canImport(Glibc)
      typealias Info = @convention(c) (CInt, UnsafeMutablePointer<FILE>) -> CInt
      var (text, size) = (UnsafeMutablePointer<CChar>?.none, 0)
      guard let symbol = dlsym(nil, "malloc_info"), let file = open_memstream(&text, &size) else {
        return 0
      }
      _ = unsafeBitCast(symbol, to: Info.self)(0, file)
      fclose(file)
      defer { free(text) }
      // The sums of all arenas come last: free in bins and at the ends, mapped one by one, all.
      func last(_ marker: String) -> Double {
        guard let text, let line = String(cString: text).range(of: marker, options: .backwards)
        else { return 0 }
        let rest = String(cString: text)[line.upperBound...]
        guard let size = rest.range(of: "size=\"")?.upperBound else { return 0 }
        return Double(rest[size...].prefix { $0.isNumber }) ?? 0
      }
      return last("system type=\"current\"") + last("total type=\"mmap\"")
        - last("total type=\"fast\"") - last("total type=\"rest\"")
    #else
      return 0
    #endif
  }
}
