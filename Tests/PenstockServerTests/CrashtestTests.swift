// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation
import PenstockTesting
import Testing
import penstock

/// What `penstock crashtest` counts and says. Whole runs are in `Tests/Clients`.
@Suite struct CrashtestTests {
  // MARK: Ledger

  /// A ledger with messages that were sent and acknowledged.
  private func ledger(acknowledged count: Int) -> Ledger {
    var ledger = Ledger()
    for number in 0..<count {
      let given = ledger.submit(producer: 0, round: 1)
      #expect(given == number)
      ledger.acknowledge(number, id: "id-\(number)")
    }
    return ledger
  }

  @Test func everyMessageIsInOneGroup() {
    var ledger = ledger(acknowledged: 6)
    for _ in 0..<3 { _ = ledger.submit(producer: 1, round: 2) }
    ledger.reject(6)
    ledger.submitDelete(1)
    ledger.acknowledgeDelete(1)
    ledger.submitDelete(2)
    ledger.submitDelete(3)
    let asked = ledger.mark()
    ledger.see(0, id: "id-0", asked: asked, draining: true)
    ledger.see(3, id: "id-3", asked: asked, draining: true)
    ledger.see(7, id: "id-7", asked: asked, draining: true)
    // Seen under load, which is not the same as being there after the crash.
    ledger.see(4, id: "id-4", asked: asked, draining: false)
    let counts = ledger.counts
    #expect(counts.submitted == 9)
    #expect(counts.acknowledged == 6)
    #expect(counts.rejected == 1)
    #expect(counts.unanswered == 2)
    #expect(counts.recovered == 2)
    #expect(counts.deleted == 1)
    #expect(counts.deletedUnanswered == 1)
    #expect(counts.lost == 2)
    #expect(counts.unacknowledgedRecovered == 1)
    #expect(ledger.missing == 2)
    #expect(counts.addsUp && counts.isBroken)
    #expect(
      ledger.examples == [
        "message 4 of producer 0, round 1: acknowledged, and gone",
        "message 5 of producer 0, round 1: acknowledged, and gone",
      ])
  }

  @Test func aMessageThatComesBackAfterItsDeleteIsResurrected() {
    var ledger = ledger(acknowledged: 2)
    let early = ledger.mark()
    for number in 0...1 {
      ledger.submitDelete(number)
      ledger.acknowledgeDelete(number)
    }
    // Asked before the delete was acknowledged: both orders are right.
    ledger.see(0, id: "id-0", asked: early, draining: false)
    #expect(ledger.counts.resurrected == 0)
    ledger.see(1, id: "id-1", asked: ledger.mark(), draining: false)
    let counts = ledger.counts
    #expect(counts.resurrected == 1 && counts.deleted == 1 && counts.lost == 0)
    #expect(counts.addsUp && counts.isBroken)
  }

  @Test func aDrainedMessageMayNotComeAgain() {
    var ledger = ledger(acknowledged: 1)
    ledger.see(0, id: "id-0", asked: ledger.mark(), draining: true)
    ledger.submitDelete(0)
    ledger.acknowledgeDelete(0)
    #expect(ledger.counts.recovered == 1)
    #expect(!ledger.counts.isBroken)
    ledger.see(0, id: "id-0", asked: ledger.mark(), draining: true)
    #expect(ledger.counts.recovered == 0 && ledger.counts.resurrected == 1)
    #expect(ledger.counts.addsUp)
  }

  @Test func anUnacknowledgedMessageMayComeBackToo() {
    var ledger = Ledger()
    let number = ledger.submit(producer: 0, round: 1)
    ledger.see(number, id: "a", asked: ledger.mark(), draining: true)
    ledger.submitDelete(number)
    ledger.acknowledgeDelete(number)
    #expect(!ledger.counts.isBroken && ledger.counts.unacknowledgedRecovered == 1)
    ledger.see(number, id: "a", asked: ledger.mark(), draining: true)
    #expect(ledger.counts.resurrected == 1 && ledger.counts.resurrectedUnacknowledged == 1)
    #expect(ledger.counts.addsUp)
  }

  @Test func twoIdsForOneBodyAreADuplicate() {
    var ledger = ledger(acknowledged: 1)
    let asked = ledger.mark()
    for id in ["id-0", "id-0"] { ledger.see(0, id: id, asked: asked, draining: true) }
    #expect(ledger.counts.duplicated == 0)
    ledger.see(0, id: "other", asked: asked, draining: true)
    #expect(ledger.counts.duplicated == 1 && ledger.counts.recovered == 1)
  }

  @Test func whatWasNeverSentIsUnknown() {
    var ledger = ledger(acknowledged: 1)
    let isKnown = ledger.see(1, id: "x", asked: 1, draining: true)
    #expect(!isKnown)
    #expect(ledger.counts.unknown == 1)
    // Under another id than the send was answered with.
    ledger.see(0, id: "y", asked: 1, draining: true)
    #expect(ledger.counts.unknown == 2 && ledger.counts.lost == 0)
    #expect(ledger.counts.isBroken && ledger.examples.count == 2)
  }

  @Test func anInterruptedRunCallsNothingLost() {
    var ledger = ledger(acknowledged: 3)
    #expect(ledger.counts.lost == 3)
    ledger.forgetMissing()
    #expect(ledger.counts.lost == 0 && ledger.counts.deletedUnanswered == 3)
    #expect(ledger.counts.addsUp)
  }

  @Test func whatWasToldToBeDamagedIsNotLostWithoutAWord() {
    var counts = ledger(acknowledged: 5).counts
    counts.setAside(0)
    #expect(counts.lost == 5 && counts.setAside == 0 && counts.isBroken)
    counts.setAside(3)
    #expect(counts.lost == 2 && counts.setAside == 3)
    #expect(counts.addsUp && counts.isBroken)
    // More was told than is missing: a message that nobody has to see was damaged as well.
    counts.setAside(9)
    #expect(counts.lost == 0 && counts.setAside == 5)
    #expect(counts.addsUp && !counts.isBroken)
    var phase = CrashReport.Phase(name: "damage")
    phase.counts = counts
    var report = report()
    report.phases = [phase]
    #expect(report.exitStatus == 0)
    #expect(
      report.verdict.hasSuffix("5 whose bytes were damaged on purpose were set aside and told"))
  }

  // MARK: Bodies

  @Test(arguments: [0, 1, 17, 300, 9000])
  func bodiesAreReadBack(size: Int) throws {
    let body = MessageBody(seed: 0xfeed, producer: 3, number: 70_000, size: size)
    #expect(body.filler.utf8.count >= size)
    #expect(try MessageBody(text: body.text, seed: 0xfeed) == body)
    #expect(
      body.text == MessageBody(seed: 0xfeed, producer: 3, number: 70_000, size: size).text)
    #expect(throws: MessageBody.Failure.otherRun(0xfeed)) {
      try MessageBody(text: body.text, seed: 1)
    }
  }

  @Test func everyChangedCharacterIsNoticed() {
    let text = Array(
      MessageBody(seed: 7, producer: 1, number: 2, filler: "the: quick <&> fox").text.unicodeScalars
    )
    for place in text.indices {
      var changed = text
      changed[place] = changed[place] == "5" ? "6" : "5"
      var string = String.UnicodeScalarView()
      string.append(contentsOf: changed)
      #expect(throws: MessageBody.Failure.self, "\(place)") {
        try MessageBody(text: String(string), seed: 7)
      }
      string.removeAll()
      string.append(contentsOf: text[..<place])
      #expect(throws: MessageBody.Failure.self, "cut at \(place)") {
        try MessageBody(text: String(string), seed: 7)
      }
    }
  }

  // MARK: Report

  private func report() -> CrashReport {
    CrashReport(
      seed: 255, command: "serve it", version: "1", machine: "a machine", directory: "/tmp/x",
      device: "/dev/vda, ext4", durability: "synced", started: "2026-01-01T00:00:00Z")
  }

  private func phase(_ name: String, lost: Int = 0) -> CrashReport.Phase {
    var phase = CrashReport.Phase(name: name)
    phase.rounds = 3
    phase.counts.submitted = 1000
    phase.counts.acknowledged = 1000
    phase.counts.recovered = 1000 - lost
    phase.counts.lost = lost
    return phase
  }

  @Test func aReportSaysWhatWasFoundAndWhatWasNot() throws {
    var report = report()
    report.phases = [phase("kill"), CrashReport.Phase(name: "power")]
    report.phases[1].skipped = "it needs root"
    let text = report.text
    for part in [
      "0xff", "serve it", "a machine", "/dev/vda, ext4", "synced", "power: not run: it needs root",
      "Verdict: nothing lost of 1000 acknowledged messages.", "not a missing sync",
      "answers before it syncs is not found out",
    ] {
      #expect(text.contains(part), "\(part)")
    }
    #expect(report.exitStatus == 0)
    let longest = text.split(separator: "\n").map(\.count).max() ?? 0
    #expect(longest <= 110 && text.split(separator: "\n").count < 40)
  }

  @Test func aLossIsInTheVerdictAndTheStatus() throws {
    var report = report()
    report.phases = [phase("kill"), phase("power", lost: 2)]
    #expect(report.exitStatus == 1)
    #expect(
      report.verdict
        == "2 acknowledged messages LOST (in power; of 2000 acknowledged messages)")
    let object = try #require(
      try JSONSerialization.jsonObject(with: Data(try report.json().utf8)) as? [String: Any])
    #expect(object["broken"] as? Bool == true)
    #expect(object["seed"] as? String == "0xff")
    #expect((object["totals"] as? [String: Int])?["lost"] == 2)
    #expect((object["phases"] as? [Any])?.count == 2)
  }

  @Test func aRefusedStartIsAFailureUnlessTheStoreWasDamaged() {
    var report = report()
    report.phases = [phase("damage")]
    report.phases[0].refused = 1
    #expect(report.exitStatus == 0)
    report.phases = [phase("kill")]
    report.phases[0].refused = 1
    #expect(report.exitStatus == 1)
    #expect(report.verdict.contains("REFUSED"))
  }

  @Test func aRunThatCannotSayIsNotAPass() {
    var report = report()
    #expect(report.exitStatus == 2)
    report.phases = [CrashReport.Phase(name: "kill")]
    #expect(report.exitStatus == 2)
    report.phases = [phase("kill")]
    report.phases[0].endedEarly = "no disk"
    #expect(report.exitStatus == 2)
    #expect(report.text.contains("ENDED EARLY: no disk"))
    report.phases[0].endedEarly = nil
    report.interrupted = true
    #expect(report.exitStatus == 2)
    report.phases = [phase("kill", lost: 1)]
    #expect(report.exitStatus == 1)
  }

  // MARK: Command line

  @Test func optionsAreRead() throws {
    let parsed = try Crashtest.parse([
      "--phases", "kill,damage", "--kills", "3", "--seed", "0xff", "--directory", "/tmp",
    ])
    #expect(parsed.phases.phases == [.kill, .damage])
    #expect(parsed.kills == 3)
    #expect(parsed.seed?.value == 255)
    #expect(try Crashtest.parse([]).phases.phases.count == 5)
  }

  @Test(arguments: [
    (["--phases", "kill,fire"], "fire"), (["--phases", ""], "--phases"),
    (["--kills", "0"], "--kills must be"), (["--rounds", "0"], "--rounds must be"),
    (["--seconds", "0"], "--seconds must be"), (["--seed", "12x"], "12x"),
    (["--durability", "maybe"], "--durability must be"),
    (["--directory", "/nowhere/at/all"], "make it first"),
    (["--command", "serve"], "belong together"),
    (["--endpoint", "http://127.0.0.1:1"], "belong together"),
    (["--command", "x", "--endpoint", "https://a:1"], "http://HOST:PORT"),
    (["--command", "x", "--endpoint", "http://a:1", "--durability", "synced"], "into --command"),
  ])
  func wrongOptionsSayWhatToDo(_ arguments: [String], _ part: String) {
    do {
      _ = try Crashtest.parse(arguments)
      Issue.record("\(arguments) was taken")
    } catch {
      #expect(Crashtest.fullMessage(for: error).contains(part))
    }
  }

  @Test func placeholdersAreFilled() {
    let target = Target.command(
      "serve -p {port} -d {data}", endpoint: "http://127.0.0.1:{port}/sqs")
    #expect(
      target.arguments(data: "/a b/it's", port: 99)
        == ["/bin/sh", "-c", "serve -p 99 -d '/a b/it'\\''s'"])
    #expect(target.endpoint(port: 99) == Endpoint(host: "127.0.0.1", port: 99, path: "/sqs"))
    #expect(target.hasDataDirectory)
    #expect(!Target.command("serve", endpoint: "http://h").hasDataDirectory)
    #expect(Endpoint("http://[::1]:8") == Endpoint(host: "::1", port: 8))
    #expect(Endpoint("ftp://h") == nil && Endpoint("h:1") == nil)
  }

  // MARK: Damage

  @Test func eachDamageChangesWhatItSays() throws {
    let base = FileManager.default.temporaryDirectory
      .appendingPathComponent("penstock-damage-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: base) }
    var kinds: Set<String> = []
    for seed in 0..<60 as Range<UInt64> {
      try? FileManager.default.removeItem(at: base)
      try FileManager.default.createDirectory(at: base, withIntermediateDirectories: true)
      let before = ["a": Data(repeating: 1, count: 9000), "b": Data(repeating: 2, count: 5000)]
      for (name, data) in before { try data.write(to: base.appendingPathComponent(name)) }
      let damage = try #require(
        try Damage.apply(to: base.path, StableRandom(seed: seed)))
      kinds.insert(damage.kind.rawValue)
      let left = try FileManager.default.contentsOfDirectory(atPath: base.path).sorted()
      let after = Dictionary(
        uniqueKeysWithValues: try left.map { name in
          (name, try Data(contentsOf: base.appendingPathComponent(name)))
        })
      let old = try #require(before[damage.file])
      switch damage.kind {
      case .removedFile: #expect(after[damage.file] == nil && after.count == 1)
      case .swappedFiles: #expect(after["a"] == before["b"] && after["b"] == before["a"])
      case .cutFile: #expect(after[damage.file] == old.prefix(try #require(damage.offset)))
      case .flippedBit, .zeroedSector:
        let new = try #require(after[damage.file])
        let changed = zip(old, new).count { $0 != $1 }
        #expect(new.count == old.count)
        #expect(damage.kind == .flippedBit ? changed == 1 : (1...4096).contains(changed))
      }
      let other = damage.file == "a" ? "b" : "a"
      if damage.kind != .swappedFiles { #expect(after[other] == before[other]) }
    }
    #expect(kinds.count == Damage.Kind.allCases.count)
  }
}
