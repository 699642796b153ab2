// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockSystem
import PenstockTesting
import PenstockTools
import Testing

/// Every tool on stores that are damaged in every kind of place. What an opening thinks of the same
/// files is the measure: `verify` says that a store opens exactly when it does.
@Suite struct Damaged {
  enum Kind: CaseIterable { case flip, zeroSector, garbage, cut, longer, removed, unreadable }

  /// Runs every tool that only looks, and says where one of them is wrong.
  static func look(_ sample: Sample, _ what: String) throws {
    let before = try sample.image()
    let refusal = try sample.refusal()
    do {
      let report = try Verify(sample.context).run()
      #expect(
        report.opens == (refusal == nil),
        "\(what): verify says \(report.text), opening \(String(describing: refusal))")
      for finding in report.findings where finding.severity == .damage {
        #expect(!finding.problem.isEmpty && !finding.meaning.isEmpty && !finding.advice.isEmpty)
      }
    } catch {
      #expect(refusal != nil, "\(what): \(error)")
    }
    do {
      var inspect = Inspect(sample.context)
      inspect.showsRecords = true
      _ = try inspect.lines()
      inspect.showsJSON = true
      _ = try inspect.lines()
      _ = try History(sample.context).run("3")
      let salvaged = try Salvage(sample.context).run()
      #expect(salvaged.messages <= Sample.messages, "\(what)")
      // The lock makes a file where there is none, and repair takes it.
      _ = try Repair(sample.context).run(applies: false)
    } catch {
      #expect(refusal != nil, "\(what): \(error)")
    }
    #expect(try sample.image() == before, "\(what): a tool changed something")
  }

  static func damage(_ sample: Sample, _ name: String, _ kind: Kind, at offset: Int) {
    let size = sample.size(name)
    switch kind {
    case .flip: sample.disk.flipBit(offset * 8 + offset % 8, in: sample.path(name))
    case .zeroSector:
      sample.change(name) { bytes in
        let start = offset / 4096 * 4096
        for index in start..<min(start + 4096, size) { bytes[index] = 0 }
      }
    case .garbage:
      sample.change(name) { bytes in
        for index in offset..<min(offset + 100, size) {
          bytes[index] = UInt8(truncatingIfNeeded: index &* 31 &+ 7)
        }
      }
    case .cut: sample.change(name) { $0.removeLast(size - offset) }
    case .longer: sample.change(name) { $0 += [UInt8](repeating: 1, count: offset % 5000 + 1) }
    case .removed: sample.disk.erase(sample.path(name))
    case .unreadable:
      let start = UInt64(offset / 4096 * 4096)
      sample.disk.setUnreadable([start..<start + 4096], in: sample.path(name))
    }
  }

  @Test(arguments: [true, false], Kind.allCases)
  func everyToolIsRightAboutIt(_ closes: Bool, _ kind: Kind) throws {
    let original = try Sample.make(closes: closes, deletes: 5)
    let segments = try original.segments
    let derived = try original.files.filter {
      $0.hasSuffix(".checkpoint") || $0.hasSuffix(".index")
    }
    let names = ["STORE", "HEAD"] + segments.prefix(2) + segments.suffix(2) + derived.suffix(4)
    for name in names {
      let size = original.size(name)
      var offsets = [0, 5, 17, 33, 49, 4090, 4096 + 20, 4096 + 70, size - 4096, size - 4096 + 60]
      offsets += [size - 1, size - 4096 + 66] + stride(from: 4096, to: size, by: 9341)
      for offset in Set(offsets).sorted() where (0..<size).contains(offset) {
        let sample = original.copy()
        Self.damage(sample, name, kind, at: offset)
        try Self.look(sample, "\(kind) of \(name) at \(offset)")
        if kind == .removed { break }
      }
    }
  }

  @Test func oneRecordIsLostAndAllOthersAreSalvaged() throws {
    let original = try Sample.make(segmentSize: 256 << 10)
    let name = try original.segments[1]
    let whole = try Salvage(original.context).run()
    #expect(whole.messages == Sample.messages)
    #expect(whole.live == Sample.messages)
    #expect(whole.queues.map(\.name) == ["orders", "other"])
    // In the header of a frame, in its body, and in its padding.
    for (offset, lost, loose) in [(4096 + 2 * 4096 + 8, 0, 1), (4096 + 2 * 4096 + 100, 1, 0)] {
      let sample = original.copy()
      sample.disk.flipBit(offset * 8, in: sample.path(name))
      let report = try Salvage(sample.context).run()
      #expect(report.messages == Sample.messages - lost)
      #expect(report.loose == loose)
      #expect(report.damages.count == 1)
      #expect(try !Verify(sample.context).run().isSound)
      #expect(try Inspect(sample.context).lines().damages == 1)
    }
  }

  @Test func theExportHasEveryBodyAndIsNeverWrittenIntoAStore() throws {
    let sample = try Sample.make(deletes: 5)
    sample.disk.erase(sample.path("STORE"))
    sample.disk.erase(sample.path("HEAD"))
    let file = try LineFile("/export", sample.context)
    let report = try Salvage(sample.context).run(export: file)
    try file.finish()
    let text = String(decoding: sample.disk.contents(of: "/export") ?? [], as: UTF8.self)
    let lines = text.split(separator: "\n")
    #expect(lines.count == report.messages)
    let live = lines.filter { $0.contains(#""ended":null"#) }
    #expect(live.count == sample.live.count)
    for body in sample.live { #expect(text.contains("\"body\":\"\(body)\"")) }
    #expect(throws: ToolError.self) { try LineFile("/export", sample.context) }
    #expect(throws: ToolError.self) { try LineFile("/store/export", sample.context) }
  }

  @Test func historyNamesEveryRecordOfAMessage() throws {
    let sample = try Sample.make(deletes: 5, segmentSize: 1 << 20)
    let byLSN = try History(sample.context).run("4")
    #expect(byLSN.text.contains("leased"))
    #expect(byLSN.text.contains("deleted"))
    let id = try #require(byLSN.id)
    #expect(try History(sample.context).run(id).text == byLSN.text)
    #expect(try History(sample.context).run("99999").records.isEmpty)
    #expect(throws: ToolError.self) { try History(sample.context).run("nonsense") }
  }

  /// Files grow and new ones appear under the tools; none of that is damage.
  @Test func aStoreInUseIsSound() async throws {
    let disk = SimulatedFileSystem()
    let store = try Store.openBlocking(
      at: Sample.directory, options: Sample.options, environment: Sample.environment(disk))
    let queue = try await store.queue("orders")
    let sending = Task {
      for number in 0..<300 { try await queue.send(Sample.body(number)) }
    }
    var looks = 0
    var last: UInt64 = 0
    while last < 300 {
      let report = try Verify(Sample.context(disk)).run()
      #expect(report.isSound, "look \(looks): \(report.text)")
      #expect(report.lastLSN >= last)
      last = report.lastLSN
      #expect(try Inspect(Sample.context(disk)).lines().damages == 0)
      looks += 1
    }
    try await sending.value
    try await store.close()
    #expect(try Verify(Sample.context(disk)).run().isSound)
  }

  @Test func linesOfJSONAreEscaped() {
    let text = "a\"\\\n\r\t\u{1}\u{7f}ä\u{85}\u{2028}\u{2029}\u{205}\u{2027}🐝"
    let expected =
      #"["a\"\\\n\r\t\u0001\u007fä\u0085\u2028\u2029"# + "\u{205}\u{2027}🐝\"]"
    #expect(JSON.array([.string(text)]).line == expected)
    #expect(JSON.object([("k", .null), ("é", .bool(true))]).line == #"{"k":null,"é":true}"#)
  }

  @Test func aDirectoryThatIsNoStoreIsSaidToBeNone() throws {
    let disk = SimulatedFileSystem()
    try disk.createDirectory("/empty")
    for directory in ["/empty", "/missing"] {
      let context = Sample.context(disk, directory)
      #expect(throws: ToolError.self) { try Verify(context).run() }
      #expect(throws: ToolError.self) { try Repair(context).run(applies: true) }
    }
    #expect(try disk.list("/empty").isEmpty)
  }
}
