// SPDX-License-Identifier: Apache-2.0

/// A queue as a client names it in `QueueUrl`.
package struct QueueAddress: Hashable, Sendable {
  /// Nil for a bare queue name, which means the caller's own account.
  package var account: String?
  package var name: String

  /// Reads an absolute http(s) URL, `account/name` or a bare name. Scheme, host and port do not
  /// count, so that a URL stays good when the server moves. Nil when it can name no queue.
  package init?(parsing text: String) {
    // Longer than any host, account and name together.
    guard !text.isEmpty, text.utf8.count <= 2048 else { return nil }
    if text.utf8.allSatisfy({ Alphabet.isNameByte($0) || $0 == UInt8(ascii: ".") }) {
      (account, name) = (nil, text)
      return
    }
    var rest = text.utf8.prefix { $0 != UInt8(ascii: "?") && $0 != UInt8(ascii: "#") }
    if let scheme = Self.range(of: "://", in: rest) {
      let name = rest[..<scheme.lowerBound]
      guard Self.matches(name, "http") || Self.matches(name, "https") else { return nil }
      rest = rest[scheme.upperBound...]
      guard let slash = rest.firstIndex(of: UInt8(ascii: "/")) else { return nil }
      rest = rest[slash...]
    }
    let segments = rest.split(separator: UInt8(ascii: "/"))
    var decoded: [String] = []
    for segment in segments {
      guard segment.contains(UInt8(ascii: "%")) else {
        decoded.append(String(Substring(segment)))
        continue
      }
      guard let text = PercentCoding.decode(segment) else { return nil }
      decoded.append(text)
    }
    switch decoded.count {
    case 1 where rest.startIndex == text.utf8.startIndex: (account, name) = (nil, decoded[0])
    case 2: (account, name) = (decoded[0], decoded[1])
    case 4 where decoded[0] == "queue": (account, name) = (decoded[2], decoded[3])
    default: return nil
    }
  }

  private static func range(of text: String, in bytes: Substring.UTF8View) -> Range<
    Substring.UTF8View.Index
  >? {
    var start = bytes.startIndex
    while start < bytes.endIndex {
      if bytes[start...].starts(with: text.utf8) {
        return start..<bytes.index(start, offsetBy: text.utf8.count)
      }
      bytes.formIndex(after: &start)
    }
    return nil
  }

  private static func matches(_ bytes: Substring.UTF8View, _ lowercase: String) -> Bool {
    bytes.count == lowercase.utf8.count
      && zip(bytes, lowercase.utf8).allSatisfy { ($0 | 0x20) == $1 }
  }
}

/// `%XX` and, in forms, `+`.
enum PercentCoding {
  /// Nil when a percent sign is not followed by two hex digits or the result is not UTF-8.
  static func decode(_ coded: some Collection<UInt8>, plusIsSpace: Bool = false) -> String? {
    bytes(coded, plusIsSpace: plusIsSpace).flatMap { String(validating: $0, as: UTF8.self) }
  }

  /// Nil when a percent sign is not followed by two hex digits.
  static func bytes(_ coded: some Collection<UInt8>, plusIsSpace: Bool = false) -> [UInt8]? {
    var result: [UInt8] = []
    result.reserveCapacity(coded.count)
    var rest = coded[...]
    while let byte = rest.popFirst() {
      if byte == UInt8(ascii: "%") {
        guard let high = rest.popFirst().flatMap(JSONParser.hexDigit),
          let low = rest.popFirst().flatMap(JSONParser.hexDigit)
        else { return nil }
        result.append(high << 4 | low)
      } else {
        result.append(plusIsSpace && byte == UInt8(ascii: "+") ? 0x20 : byte)
      }
    }
    return result
  }
}

/// The rules for names.
package enum QueueName {
  package static func isValid(_ name: String) -> Bool {
    let bytes = name.utf8
    return (1...80).contains(bytes.count) && bytes.allSatisfy(Alphabet.isNameByte)
  }

  package static func isValidFIFO(_ name: String) -> Bool {
    name.utf8.count <= 80 && name.hasSuffix(".fifo") && isValid(String(name.dropLast(5)))
  }
}

/// The alphabets of identifiers and texts.
package enum Alphabet {
  /// `A-Z a-z 0-9 _ -`
  static func isNameByte(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"):
      true
    default: false
    }
  }

  /// 1 to 128 printable ASCII characters without the space.
  static func isGroupID(_ text: String) -> Bool {
    (1...128).contains(text.utf8.count) && text.utf8.allSatisfy { (0x21...0x7e).contains($0) }
  }

  /// True when all characters are among those a message may hold: U+0009, U+000A, U+000D, U+0020
  /// to U+D7FF, U+E000 to U+FFFD and U+10000 to U+10FFFF. `bytes` comes from
  /// `JSONNode.stringBytes`: UTF-8, but for surrogates.
  package static func isWireText(_ bytes: [UInt8]) -> Bool {
    var position = bytes.withUnsafeBytes { PlainText.end(of: $0, from: 0, isQuoted: false) }
    while position < bytes.count {
      defer { position += 1 }
      switch bytes[position] {
      case 0x20..<0xed, 0x09, 0x0a, 0x0d: continue
      case 0xed:
        if position + 1 < bytes.count, bytes[position + 1] >= 0xa0 { return false }
      case 0xef:
        if position + 2 < bytes.count, bytes[position + 1] == 0xbf, bytes[position + 2] >= 0xbe {
          return false
        }
      case 0..<0x20: return false
      default: continue
      }
    }
    return true
  }
}
