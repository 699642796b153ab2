// SPDX-License-Identifier: Apache-2.0

/// A second of the Gregorian calendar in UTC, years 0000 to 9999, as signatures write it.
///
/// Every reader takes one form to its last byte: no other width, no leap second, no day that the
/// month does not have.
package struct SigningTime: Hashable, Comparable, Sendable {
  /// Since 1970-01-01; negative before.
  package let seconds: Int64

  static let first = Int64(-62_167_219_200)
  static let last = Int64(253_402_300_799)

  /// Held to the years that have four digits.
  package init(seconds: Int64) {
    self.seconds = min(max(seconds, Self.first), Self.last)
  }

  /// `20260115T120000Z`
  package init?(basic text: String) {
    let bytes = Array(text.utf8)
    guard bytes.count == 16, bytes[8] == UInt8(ascii: "T"), bytes[15] == UInt8(ascii: "Z"),
      let year = Self.number(bytes[0..<4]), let month = Self.number(bytes[4..<6]),
      let day = Self.number(bytes[6..<8]), let hour = Self.number(bytes[9..<11]),
      let minute = Self.number(bytes[11..<13]), let second = Self.number(bytes[13..<15])
    else { return nil }
    self.init(year: year, month: month, day: day, hour: hour, minute: minute, second: second)
  }

  /// `2026-01-15T12:00:00Z`, or with `+00:00` in place of the `Z`.
  package init?(extended text: String) {
    let bytes = Array(text.utf8)
    guard bytes.count == 20 || bytes.count == 25 else { return nil }
    let zone = String(decoding: bytes[19...], as: UTF8.self)
    guard zone == "Z" || zone == "+00:00",
      bytes[4] == UInt8(ascii: "-"), bytes[7] == UInt8(ascii: "-"),
      bytes[10] == UInt8(ascii: "T"), bytes[13] == UInt8(ascii: ":"),
      bytes[16] == UInt8(ascii: ":"),
      let year = Self.number(bytes[0..<4]), let month = Self.number(bytes[5..<7]),
      let day = Self.number(bytes[8..<10]), let hour = Self.number(bytes[11..<13]),
      let minute = Self.number(bytes[14..<16]), let second = Self.number(bytes[17..<19])
    else { return nil }
    self.init(year: year, month: month, day: day, hour: hour, minute: minute, second: second)
  }

  /// `Thu, 15 Jan 2026 12:00:00 GMT`, the form of HTTP. The day of the week must be the right one.
  package init?(http text: String) {
    let bytes = Array(text.utf8)
    guard bytes.count == 29, bytes[3] == UInt8(ascii: ","), bytes[19] == UInt8(ascii: ":"),
      bytes[22] == UInt8(ascii: ":"), bytes[25...].elementsEqual(" GMT".utf8),
      [4, 7, 11, 16].allSatisfy({ bytes[$0] == UInt8(ascii: " ") }),
      let day = Self.number(bytes[5..<7]), let year = Self.number(bytes[12..<16]),
      let hour = Self.number(bytes[17..<19]), let minute = Self.number(bytes[20..<22]),
      let second = Self.number(bytes[23..<25])
    else { return nil }
    let name = String(decoding: bytes[8..<11], as: UTF8.self)
    guard let month = Self.months.firstIndex(of: name) else { return nil }
    self.init(
      year: year, month: Int64(month) + 1, day: day, hour: hour, minute: minute, second: second)
    // The first day that is known to this type was a Saturday.
    let weekday = Int((seconds - Self.first) / 86_400 % 7)
    guard bytes[0..<3].elementsEqual(Self.days[weekday].utf8) else { return nil }
  }

  private init?(
    year: Int64, month: Int64, day: Int64, hour: Int64, minute: Int64, second: Int64
  ) {
    guard (1...12).contains(month), day >= 1, day <= Self.days(in: month, of: year), hour < 24,
      minute < 60, second < 60
    else { return nil }
    // Years that begin in March have their leap day last. 719,468 days lie between the first of
    // March of the year 0 and 1970; January and February of the year 0 belong to the year -1,
    // which is moved up by one era of 400 years.
    let marchYear = (month > 2 ? year : year - 1) + 400
    let marchMonth = month > 2 ? month - 3 : month + 9
    let dayOfYear = (153 * marchMonth + 2) / 5 + day - 1
    let dayNumber =
      marchYear * 365 + marchYear / 4 - marchYear / 100 + marchYear / 400 + dayOfYear
      - 719_468 - 146_097
    seconds = dayNumber * 86_400 + hour * 3600 + minute * 60 + second
  }

  /// `20260115T120000Z`
  package var basic: String {
    let sinceFirst = seconds - Self.first
    let time = sinceFirst % 86_400
    return day + "T" + Self.text(time / 3600, 2) + Self.text(time / 60 % 60, 2)
      + Self.text(time % 60, 2) + "Z"
  }

  /// `20260115`
  package var day: String {
    // Counted from the first of March of the year -400.
    let days = (seconds - Self.first) / 86_400 + 146_097 - 60
    let era = days / 146_097
    let dayOfEra = days % 146_097
    let yearOfEra =
      (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let marchMonth = (5 * dayOfYear + 2) / 153
    let month = marchMonth < 10 ? marchMonth + 3 : marchMonth - 9
    let year = yearOfEra + era * 400 - 400 + (month <= 2 ? 1 : 0)
    return Self.text(year, 4) + Self.text(month, 2)
      + Self.text(dayOfYear - (153 * marchMonth + 2) / 5 + 1, 2)
  }

  package static func < (a: SigningTime, b: SigningTime) -> Bool { a.seconds < b.seconds }

  private static let days = ["Sat", "Sun", "Mon", "Tue", "Wed", "Thu", "Fri"]
  private static let months = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
  ]

  private static func days(in month: Int64, of year: Int64) -> Int64 {
    switch month {
    case 2: year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28
    case 4, 6, 9, 11: 30
    default: 31
    }
  }

  /// At most four digits, and nothing but digits.
  private static func number(_ bytes: ArraySlice<UInt8>) -> Int64? {
    var value = Int64(0)
    for byte in bytes {
      guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") else { return nil }
      value = value * 10 + Int64(byte - UInt8(ascii: "0"))
    }
    return value
  }

  private static func text(_ value: Int64, _ width: Int) -> String {
    let digits = String(value)
    return String(repeating: "0", count: max(0, width - digits.utf8.count)) + digits
  }
}
