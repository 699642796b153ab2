// SPDX-License-Identifier: Apache-2.0
import Foundation
import Penstock
import PenstockSQS
import PenstockTesting
import Testing

private let start = Timestamp(milliseconds: 1_700_000_000_000)

/// A line of a ring; equal seeds are equal keys.
func keyLine(_ name: String, _ version: Int = 1, seed: UInt8 = 1) -> String {
  let bytes = (0..<32).map { UInt8($0) &* 7 &+ seed }
  return "\(name) \(version) \(Data(bytes).base64EncodedString())"
}

func keyRing(_ lines: String...) throws -> KeyRing {
  try KeyRing(parsing: lines.joined(separator: "\n"))
}

/// The error of a call of a ring; nil when there is none.
private func refusal(_ body: () throws -> [UInt8]) -> PenstockError? {
  do {
    _ = try body()
    return nil
  } catch { return error as? PenstockError }
}

extension KeyRing {
  func seal(_ plain: [UInt8], _ key: String, after seconds: Int64 = 0) throws -> [UInt8] {
    try seal(
      plain, key: key, reuse: .seconds(300),
      at: Timestamp(milliseconds: start.milliseconds + seconds * 1000))
  }
}

@Suite struct KeyRings {
  @Test(arguments: [0, 1, 15, 16, 17, 70_000]) func whatIsSealedOpens(size: Int) throws {
    let ring = try keyRing(keyLine("k"))
    let plain = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31) }
    let sealed = try ring.seal(plain, "k")
    #expect(sealed.count == size + 103)
    #expect(try ring.open(sealed, key: "k") == plain)
    #expect(try ring.seal(plain, "k") != sealed, "no nonce comes twice")
    // Another process has the same keys and none of the memory.
    #expect(try keyRing(keyLine("k")).open(sealed, key: "k") == plain)
  }

  @Test func everyByteCounts() throws {
    let ring = try keyRing(keyLine("k"), keyLine("j"), keyLine("k", 3))
    let sealed = try ring.seal(Array("a body that nobody may change".utf8), "k")
    let other = try keyRing(keyLine("k"), keyLine("j"), keyLine("k", 3))
    for opener in [ring, other] {
      for place in sealed.indices {
        for mask in [1, 2, 8, 128] as [UInt8] {
          var bytes = sealed
          bytes[place] ^= mask
          let error = refusal { try opener.open(bytes, key: "k") }
          #expect(error?.code == .keyMismatch || error?.code == .keyNotFound, "byte \(place)")
        }
      }
      for length in sealed.indices {
        #expect(refusal { try opener.open(Array(sealed[..<length]), key: "k") } != nil)
      }
      #expect(refusal { try opener.open(sealed + [0], key: "k") }?.code == .keyMismatch)
      #expect(refusal { try opener.open(sealed, key: "j") }?.code == .keyMismatch)
    }
  }

  @Test(arguments: UInt64(0)..<20) func strangeBytesAreRefused(seed: UInt64) throws {
    let ring = try keyRing(keyLine("k"))
    let random = StableRandom(seed: seed)
    let sealed = try ring.seal([1, 2, 3], "k")
    for _ in 0..<200 {
      var bytes = (0..<random.below(200)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
      if random.chance(1, of: 2) {
        bytes = Array(sealed.prefix(random.below(sealed.count))) + bytes
      }
      #expect(refusal { try ring.open(bytes, key: "k") } != nil)
    }
  }

  /// The wrapped data key is in the envelope's first bytes.
  @Test func aDataKeyIsUsedForSoLong() throws {
    let ring = try keyRing(keyLine("k"), keyLine("j", seed: 2))
    func head(_ key: String, after seconds: Int64) throws -> ArraySlice<UInt8> {
      try ring.seal([], key, after: seconds).prefix(75)
    }
    let first = try head("k", after: 0)
    #expect(try head("k", after: 299) == first)
    #expect(try head("j", after: 0) != first)
    let second = try head("k", after: 300)
    #expect(second != first)
    #expect(try head("k", after: 310) == second)
    #expect(try head("k", after: 299) != second, "time went back")
    let once = try ring.seal([], key: "k", reuse: .zero, at: start).prefix(75)
    #expect(try ring.seal([], key: "k", reuse: .zero, at: start).prefix(75) != once)
  }

  @Test func theHighestVersionSealsAndAllOpen() throws {
    let ring = try keyRing(keyLine("k", 2, seed: 2))
    let old = try ring.seal([1], "k")
    try ring.replace(parsing: keyLine("k", 2, seed: 2) + "\n" + keyLine("k", 10, seed: 10))
    let new = try ring.seal([1], "k")
    #expect([old[3], new[3]] == [2, 10])
    #expect(try ring.open(old, key: "k") == [1] && ring.open(new, key: "k") == [1])
    let onlyOld = try keyRing(keyLine("k", 2, seed: 2))
    let error = refusal { try onlyOld.open(new, key: "k") }
    #expect(error?.code == .keyNotFound && error?.message.contains("version 10") == true)
  }

  @Test func anotherKeyIsToldFromDamage() throws {
    let sealed = try keyRing(keyLine("k")).seal([1], "k")
    let other = refusal { try keyRing(keyLine("k", seed: 9)).open(sealed, key: "k") }
    #expect(other?.code == .keyMismatch && other?.message.contains("another key") == true)
    var bytes = sealed
    bytes[bytes.count - 1] ^= 1
    let damaged = refusal { try keyRing(keyLine("k")).open(bytes, key: "k") }
    #expect(damaged?.code == .keyMismatch && damaged?.message.contains("changed") == true)
    let missing = refusal { try keyRing(keyLine("j")).open(sealed, key: "k") }
    #expect(missing?.code == .keyNotFound)
    #expect(refusal { try keyRing(keyLine("j")).seal([1], "k") }?.code == .keyNotFound)
  }

  @Test func aRingThatLostAKeyIsNotTakenOver() throws {
    let ring = try keyRing(keyLine("k"), keyLine("j", 1, seed: 2))
    let sealed = try ring.seal([1], "k")
    for text in [
      keyLine("j", 1, seed: 2), keyLine("k", 1, seed: 7) + "\n" + keyLine("j", 1, seed: 2),
      "nonsense", "",
    ] {
      #expect(throws: KeyRingError.self) { try ring.replace(parsing: text) }
      #expect(try ring.open(sealed, key: "k") == [1])
    }
    #expect(ring.has(key: "k") && ring.has(key: "j") && !ring.has(key: "i"))
  }

  @Test func aRingHasCommentsAndEmptyLines() throws {
    let ring = try KeyRing(
      parsing: "# keys\r\n\r\n  \(keyLine("alias/a.b-c_9", 4_294_967_295))\t# the first\n\n")
    #expect(ring.has(key: "alias/a.b-c_9"))
    #expect(try ring.open(ring.seal([5], "alias/a.b-c_9"), key: "alias/a.b-c_9") == [5])
  }

  @Test(arguments: [
    ("", "no key"), ("# nothing", "no key"), ("k 1", "line 1"),
    ("k 1 AAAA", "32 bytes"), (keyLine("k") + " more", "line 1"),
    (keyLine("k") + "\n" + keyLine("k", seed: 2), "line 2"),
    (keyLine("k", 0), "version"), (keyLine("k", -1), "version"),
    (keyLine("k").replacing(" 1 ", with: " 01 "), "version"),
    (keyLine("k", 4_294_967_296), "version"), (keyLine("kä"), "name"),
    (keyLine(String(repeating: "k", count: 129)), "name"),
    (keyLine("k").replacing("=", with: ""), "32 bytes"),
  ])
  func aRingThatIsWrongIsRefused(text: String, reason: String) throws {
    let error = #expect(throws: KeyRingError.self) { try KeyRing(parsing: text) }
    #expect(error?.description.contains(reason) == true, "\(error?.description ?? "")")
    for field in text.split(whereSeparator: \.isWhitespace) where field.count == 44 {
      #expect(error?.description.contains(field) == false)
    }
  }
}
