// SPDX-License-Identifier: Apache-2.0
import PenstockSystem
import PenstockTesting
import Testing

@Suite struct Checksums {
  @Test func theKnownValueOfTheStandardComesOut() {
    let digits = Array("123456789".utf8)
    #expect(digits.withRaw { CRC32C.of($0) } == 0xe306_9283)
    #expect(digits.withRaw { CRC32C.portable($0) } == 0xe306_9283)
  }

  /// Values of RFC 3720, appendix B.4.
  @Test func theExamplesOfTheInternetStandardComeOut() {
    let zeros = [UInt8](repeating: 0, count: 32)
    let ones = [UInt8](repeating: 0xff, count: 32)
    let rising = (0..<32).map { UInt8($0) }
    #expect(zeros.withRaw { CRC32C.of($0) } == 0x8a91_36aa)
    #expect(ones.withRaw { CRC32C.of($0) } == 0x62a8_ab43)
    #expect(rising.withRaw { CRC32C.of($0) } == 0x46dd_794e)
  }

  @Test func nothingHasTheChecksumZero() {
    #expect([UInt8]().withRaw { CRC32C.of($0) } == 0)
    #expect([UInt8]().withRaw { CRC32C.portable($0) } == 0)
  }

  /// Around every border of the instruction's path: words of 8, three streams of 1024.
  @Test func theInstructionAgreesWithTheTablesForEveryLengthAndAlignment() {
    let random = StableRandom(seed: 1)
    let bytes = (0..<20_000).map { _ in UInt8(truncatingIfNeeded: random.next()) }
    let lengths =
      Array(0...130) + [1023, 1024, 1025] + Array(3064...3081) + Array(6140...6154)
      + [9216, 12_288, 16_384, 19_000]
    for start in 0..<9 {
      for length in lengths {
        let seed = UInt32(truncatingIfNeeded: random.next())
        bytes.withRaw { raw in
          let part = raw.extracting(start..<start + length)
          #expect(CRC32C.of(part) == CRC32C.portable(part))
          #expect(CRC32C.of(part, seed: seed) == CRC32C.portable(part, seed: seed))
        }
      }
    }
  }

  @Test func aChecksumCanBeContinued() {
    let random = StableRandom(seed: 2)
    let bytes = (0..<7000).map { _ in UInt8(truncatingIfNeeded: random.next()) }
    bytes.withRaw { raw in
      let whole = CRC32C.of(raw)
      for cut in [0, 1, 7, 8, 9, 3071, 3072, 3073, 6999, 7000] {
        let first = CRC32C.of(raw.extracting(0..<cut))
        #expect(CRC32C.of(raw.extracting(cut..<7000), seed: first) == whole)
      }
    }
  }
}

@Suite struct Zeros {
  /// What finds damage in padding must find it in every bit.
  @Test func everyBitCounts() {
    var bytes = [UInt8](repeating: 0, count: 4096 - 88)
    #expect(bytes.withRaw { $0.isZero })
    for bit in 0..<bytes.count * 8 {
      bytes.flip(bit: bit)
      if bytes.withRaw({ $0.isZero }) { Issue.record("bit \(bit) was not seen") }
      bytes.flip(bit: bit)
    }
  }
}
