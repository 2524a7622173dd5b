//! The bank's master data, as pure functions of seed, account or customer, and version: nothing is
//! remembered.
//!
//! Customer `i` owns account `i`. One account in five has a co-holder, the customer a fixed distance further
//! on, so that the accounts of a customer can be told without a search.

use super::Day;
use super::random::{Random, Stream};
use crate::records::{
    AccountAlerts, AccountAuthorizations, Address, AlertRule, Channel, CustomerAlertSettings,
    CustomerDevices, Device, RuleType,
};
use compact_str::format_compact;
use tidegate::record::Text;

/// The version of the snapshot; changes draw others.
pub const SNAPSHOT: u64 = 0;

/// Aspects of an account that are drawn for themselves; versions of rows never come near them.
const CURRENCY: u64 = u64::MAX;
const BALANCE: u64 = u64::MAX - 1;
const CO_HOLDER: u64 = u64::MAX - 2;
const EMPLOYER: u64 = u64::MAX - 3;

/// The name of an account.
pub fn account_id(account: u32) -> Text {
    format_compact!("A{account:07}")
}

/// The name of a customer.
pub fn customer_id(customer: u32) -> Text {
    format_compact!("C{customer:07}")
}

/// An account's currency: nine in ten are in euro.
pub fn currency(day: Day, account: u32) -> Text {
    match Random::of(day.seed, Stream::Bank, account.into(), CURRENCY).below(20) {
        0 => Text::const_new("CZK"),
        1 => Text::const_new("USD"),
        _ => Text::const_new("EUR"),
    }
}

/// An account's balance at midnight, minor units.
pub fn opening_balance(day: Day, account: u32) -> i64 {
    10 * Random::of(day.seed, Stream::Bank, account.into(), BALANCE).amount()
}

/// Who pays an account's salary: fifty accounts to an employer.
pub fn employer(day: Day, account: u32) -> Text {
    let employers = u64::from(day.accounts / 50 + 1);
    let employer = Random::of(day.seed, Stream::Bank, account.into(), EMPLOYER).below(employers);
    format_compact!("EMPLOYER-{employer:05}")
}

/// How far the co-holder of an account is from its owner.
fn distance(day: Day) -> u32 {
    1 + u32::try_from(day.seed % 1_000).unwrap_or(0) % (day.accounts - 1)
}

fn co_holder(day: Day, account: u32) -> u32 {
    (account + distance(day)) % day.accounts
}

fn has_co_holder(day: Day, account: u32, version: u64) -> bool {
    Random::of(day.seed, Stream::Bank, account.into(), CO_HOLDER ^ (version << 8)).permille(200)
}

/// An account's row of authorizations.
pub fn authorizations(day: Day, account: u32, version: u64) -> AccountAuthorizations {
    let mut customers = vec![customer_id(account)];
    if has_co_holder(day, account, version) {
        customers.push(customer_id(co_holder(day, account)));
    }
    AccountAuthorizations {
        account_id: account_id(account),
        customers,
    }
}

/// A customer's row of settings: rules for the accounts it held in the snapshot.
pub fn settings(day: Day, customer: u32, version: u64) -> CustomerAlertSettings {
    let mut random = Random::of(day.seed, Stream::Settings, customer.into(), version);
    let id = customer_id(customer);
    let mut addresses = vec![];
    let mut add = |channel, address| addresses.push(Address { channel, address });
    match random.below(20) {
        0 => {}
        1 => {
            add(Channel::Email, format_compact!("c{customer}@mail.example"));
            add(
                Channel::Email,
                format_compact!("household-{customer}@mail.example"),
            );
        }
        _ => add(Channel::Email, format_compact!("c{customer}@mail.example")),
    }
    if random.permille(600) {
        add(Channel::Sms, format_compact!("+4207{customer:08}"));
    }
    if random.permille(700) {
        add(Channel::Push, id.clone());
    }
    let mut accounts = vec![account_alerts(day, customer, &mut random)];
    let co_held = (customer + day.accounts - distance(day)) % day.accounts;
    if has_co_holder(day, co_held, SNAPSHOT) {
        accounts.push(account_alerts(day, co_held, &mut random));
    }
    CustomerAlertSettings {
        customer_id: id,
        addresses,
        accounts,
    }
}

/// One or two rules for an account; one in fifty in a currency that the account does not have.
fn account_alerts(day: Day, account: u32, random: &mut Random) -> AccountAlerts {
    let currency = if random.permille(20) {
        Text::const_new("GBP")
    } else {
        currency(day, account)
    };
    let alerts = (0..1 + random.below(2))
        .map(|_| rule(day, account, random))
        .collect();
    AccountAlerts {
        account_id: account_id(account),
        currency,
        alerts,
    }
}

/// A rule whose threshold many entries pass: this is what makes about 0.6 alerts per entry.
fn rule(day: Day, account: u32, random: &mut Random) -> AlertRule {
    let (kind, threshold) = match random.below(100) {
        0..42 => (RuleType::DebitedAbove, Some(random.within(500, 3_000))),
        42..84 => (RuleType::CreditedAbove, Some(random.within(500, 3_000))),
        84..90 => (RuleType::BalanceAbove, Some(random.within(20_000, 300_000))),
        90..96 => (RuleType::BalanceBelow, Some(random.within(0, 30_000))),
        _ => (RuleType::CreditedFrom, None),
    };
    let counterparty = (kind == RuleType::CreditedFrom).then(|| employer(day, account));
    let channels = match random.below(6) {
        0 => vec![Channel::Email],
        1 => vec![Channel::Sms],
        2 => vec![Channel::Push],
        3 => vec![Channel::Email, Channel::Sms],
        4 => vec![Channel::Email, Channel::Push],
        _ => vec![Channel::Sms, Channel::Push],
    };
    AlertRule {
        r#type: kind,
        threshold,
        counterparty,
        channels,
    }
}

/// A customer's row of devices: none to three.
pub fn devices(day: Day, customer: u32, version: u64) -> CustomerDevices {
    let mut random = Random::of(day.seed, Stream::Devices, customer.into(), version);
    let count = [0, 1, 1, 1, 1, 2, 2, 3][random.below(8) as usize];
    let mut device = |index: usize| {
        let device_type = if random.permille(600) { "android" } else { "ios" };
        Device {
            push_id: format_compact!("p{customer}-{index}"),
            device_type: device_type.into(),
        }
    };
    CustomerDevices {
        customer_id: customer_id(customer),
        devices: (0..count).map(&mut device).collect(),
    }
}
